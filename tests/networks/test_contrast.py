"""A pair of towers learns what captions say of pictures, and is written as a checkpoint that everything here reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.networks.anchors import text_anchors
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.networks.contrast import contrastive_loss, pretrain_clip
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.text_head import CosineHead, put_head
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.networks.weights import load_backbone
from tests.networks.clip import SIZE, photographs, shapes
from tests.pretended_gpu import PretendedGPU

COLOURS = ("red", "green", "blue")
WORDS = ["".join(letters) for letters in np.random.default_rng(0).choice([*"abcdefghijklmnopqrstuvwxyz"], (20, 5))]


@dataclass(frozen=True)
class Sentence:
    text: str
    statements: frozenset[str]


def pictures(count: int = 12) -> list[torch.Tensor]:
    """Colour i of three is the bright one in picture i, 3 + i and so on."""
    noise = 0.1 * photographs(count)
    return [noise[i] + torch.eye(3)[i % 3][:, None, None] for i in range(count)]


def caption(number: int, rng: np.random.Generator) -> Sentence:
    colour = COLOURS[number % 3]
    places = " ".join(str(word) for word in rng.choice(WORDS, 4))
    return Sentence(f"a {colour} photo of {places}", frozenset({colour}))


def train(output: Path, *, images: list[torch.Tensor] | None = None, **changes: Any) -> tuple[float, ...]:
    images = pictures() if images is None else images
    settings = {"size": SIZE, "epochs": 2, "batch_size": 6, "lr": 1e-3, "seed": 0, "caption": caption}
    facts = [frozenset({COLOURS[i % 3], "square"}) for i in range(len(images))]
    return pretrain_clip(images, **{**settings, "statements": facts, **changes}, output=output)


def test_the_loss_is_clips_where_every_caption_has_one_picture() -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    diagonal = torch.arange(4)
    expected = (functional.cross_entropy(logits, diagonal) + functional.cross_entropy(logits.T, diagonal)) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(4, dtype=torch.bool)), expected)


def test_all_pictures_of_which_a_caption_is_true_share_it() -> None:
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    true = torch.tensor([[True, False], [True, True], [False, True]])
    to_text = functional.cross_entropy(logits, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    to_image = functional.cross_entropy(logits.T, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]))
    torch.testing.assert_close(contrastive_loss(logits, true), (to_text + to_image) / 2)


@pytest.mark.slow
def test_it_learns_what_captions_say(tmp_path: Path) -> None:
    seen = []
    losses = train(tmp_path / "clip.safetensors", epochs=6, on_epoch=lambda *report: seen.append(report))
    assert seen == list(enumerate(losses, start=1))
    assert losses[-1] < 0.8 * losses[0]
    network = build_backbone(SIZE, out_chans=3).eval()
    assert load_backbone(network, tmp_path / "clip.safetensors").layout == "pretrained"
    prompts = Prompts(templates=("a {class} photo",))
    anchors = text_anchors(tmp_path / "clip.safetensors", size=SIZE, classes=COLOURS, prompts=prompts)
    put_head(network, CosineHead.of(anchors))
    with torch.no_grad():
        found = network(torch.stack(pictures(30)[12:])).argmax(1)
    assert found.tolist() == [i % 3 for i in range(18)]


def test_the_file_says_where_it_comes_from_and_is_small(tmp_path: Path) -> None:
    losses = train(tmp_path / "clip.safetensors", seed=3, provenance="coloured noise")
    tensors, metadata = files.load_tensors(tmp_path / "clip.safetensors")
    expected = {"size": SIZE, "seed": "3", "epochs": "2", "n_images": "12", "provenance": "coloured noise"}
    assert expected.items() <= metadata.items()
    assert float(metadata["final_loss"]) == pytest.approx(losses[-1], abs=1e-5)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert {path.name for path in tmp_path.iterdir()} == {"clip.safetensors", "vocab.json", "merges.txt"}


@pytest.mark.slow
def test_a_gpu_trains_it_too(tmp_path: Path, gpu: PretendedGPU) -> None:
    losses = train(tmp_path / "b" / "clip.safetensors", device="cuda")
    assert losses == pytest.approx(train(tmp_path / "a" / "clip.safetensors"), rel=1e-3)


@pytest.mark.slow
def test_bfloat16_trains_alike(tmp_path: Path) -> None:
    full, half = train(tmp_path / "a" / "clip.safetensors"), train(tmp_path / "b" / "clip.safetensors", bf16=True)
    assert half != full
    assert half == pytest.approx(full, rel=0.05)


@pytest.mark.slow
def test_the_seed_decides_everything(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name / "clip.safetensors", seed=seed, epochs=1)
        assert torch.equal(torch.get_rng_state(), state)
    digests = [files.sha256(tmp_path / name / "clip.safetensors") for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


@torch.no_grad()
def test_training_starts_from_a_given_tower(tmp_path: Path) -> None:
    torch.manual_seed(1)
    start = build_backbone("vit_demo", out_chans=1)
    start.embed.patch.bias.normal_()
    with torch.enable_grad():
        train(tmp_path / "clip.safetensors", epochs=1, lr=1e-12, start=start)
    network = build_backbone(SIZE, out_chans=1)
    load_backbone(network, tmp_path / "clip.safetensors")
    x = photographs()
    torch.testing.assert_close(network.embed.patches(x), start.embed.patches(x), rtol=1e-2, atol=1e-2)
    assert isinstance(network, VisionTransformer)
    for key, value in start.blocks.state_dict().items():
        torch.testing.assert_close(network.blocks.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def of_another_shape() -> VisionTransformer:
    return VisionTransformer(ViTSettings(image_size=(64, 64), patch=8, dim=48, depth=1, n_heads=2), out_chans=1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (lambda: {"epochs": 0}, ConfigError, "epochs must be at least 1, not 0"),
        (lambda: {"batch_size": 1}, ConfigError, "batch_size must be at least 2, not 1"),
        (lambda: {"lr": 0.0}, ConfigError, "lr must be positive, not 0.0"),
        (lambda: {"size": "vit_demo"}, ConfigError, "a vit_demo network cannot read texts"),
        (lambda: {"images": pictures(1)}, DataError, "two images or more"),
        (lambda: {"start": of_another_shape()}, ConfigError, "to start from is of another shape: embed.cls"),
        (lambda: {"images": [x * torch.nan for x in pictures()]}, ConfigError, "the loss became nan in epoch 1"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_writes_nothing(
    tmp_path: Path, changes: Callable[[], dict[str, Any]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tmp_path / "clip.safetensors", **changes())
    assert list(tmp_path.iterdir()) == []


def test_the_demonstrations_towers_have_one_image_shape() -> None:
    """Weights of vit_demo can start the image tower: same grid, width and depth."""
    image, plain = shapes()[1], build_backbone("vit_demo", out_chans=1).settings
    assert isinstance(plain, ViTSettings)
    assert [getattr(one, name) for one in (image, plain) for name in ("image_size", "patch", "dim", "depth")] == [
        (64, 64), 8, 96, 6, (64, 64), 8, 96, 6,
    ]  # fmt: skip
