from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, DataError, OutOfMemory
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.networks.cinema import convvit
from monai_fedlora.networks.pretraining import pretrain
from monai_fedlora.networks.standardise import standardise_readout
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from tests.pretended_gpu import PretendedGPU

SHAPE = (2, 16, 16, 2)


def blobs(n: int = 8) -> list[torch.Tensor]:
    """Smooth bumps at random places, from which a masked patch can be guessed."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*[torch.arange(size) for size in SHAPE[1:]], indexing="ij")
    images = []
    for _ in range(n):
        centre = torch.rand(2, generator=generator) * 16
        distance = (axes[0] - centre[0]) ** 2 + (axes[1] - centre[1]) ** 2
        images.append(torch.stack([(-distance / 40).exp(), (-distance / 20).exp()]))
    return images


def run(output: Path, **changes) -> tuple[float, ...]:
    settings = {"size": "small", "epochs": 2, "batch_size": 4, "lr": 1e-3, "mask_ratio": 0.5, "seed": 0}
    images = changes.pop("images", blobs())
    return pretrain(images, **{**settings, **changes}, output=output)


@pytest.mark.slow
def test_the_loss_falls_and_the_file_loads_as_a_backbone(tmp_path: Path) -> None:
    seen = []
    losses = run(tmp_path / "b.safetensors", epochs=20, lr=3e-3, on_epoch=lambda *report: seen.append(report))
    assert losses[-1] < 0.8 * losses[0]
    assert seen == list(enumerate(losses, start=1))
    network = convvit("small", out_chans=3, image_size=SHAPE[1:])
    info = load_backbone(network, tmp_path / "b.safetensors")
    assert info.layout == "pretrained"
    weights, _ = files.load_tensors(tmp_path / "b.safetensors")
    own = network.state_dict()
    assert own.keys() - weights.keys() == {key for key in own if key.startswith(network.head_prefixes)}
    torch.testing.assert_close({key: own[key] for key in weights}, weights, rtol=0, atol=0)


def test_the_file_says_where_it_comes_from(tmp_path: Path) -> None:
    losses = run(tmp_path / "b.safetensors", seed=3, provenance="smooth bumps")
    _, metadata = files.load_tensors(tmp_path / "b.safetensors")
    expected = {"seed": "3", "epochs": "2", "n_images": "8", "image_size": "16x16x2", "provenance": "smooth bumps"}
    assert expected.items() <= metadata.items()
    assert float(metadata["final_loss"]) == pytest.approx(losses[-1], abs=1e-5)


def test_the_same_seed_gives_the_same_weights_whatever_ran_before(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    run(tmp_path / "a.safetensors", epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    run(tmp_path / "b.safetensors", epochs=1)
    run(tmp_path / "c.safetensors", epochs=1, seed=1)
    a, b, c = (files.load_tensors(tmp_path / f"{name}.safetensors")[0] for name in "abc")
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(a["encoder.cls_token"], c["encoder.cls_token"])


@pytest.mark.slow
def test_the_readout_is_standardised_on_the_images_given_for_it(tmp_path: Path) -> None:
    run(tmp_path / "a.safetensors")
    run(tmp_path / "b.safetensors", standardise_on=iter(blobs()))
    (plain, said), (standard, says) = (files.load_tensors(tmp_path / f"{name}.safetensors") for name in "ab")
    assert (said["readout"], says["readout"]) == ("as trained", "standardised")
    network = convvit("small", out_chans=1, image_size=SHAPE[1:])
    load_backbone(network, tmp_path / "a.safetensors")
    standardise_readout(network, torch.stack(blobs()).split(4))
    assert not torch.equal(plain["encoder.norm.weight"], standard["encoder.norm.weight"])
    torch.testing.assert_close({key: network.state_dict()[key] for key in standard}, standard, rtol=0, atol=0)


def test_an_iterator_is_read_once(tmp_path: Path) -> None:
    run(tmp_path / "a.safetensors", images=iter(blobs()))
    run(tmp_path / "b.safetensors")
    a, b = (files.load_tensors(tmp_path / f"{name}.safetensors")[0] for name in "ab")
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
def test_a_gpu_computes_all_and_is_waited_for_once_in_an_epoch(tmp_path: Path, gpu: PretendedGPU, bf16: bool) -> None:
    with gpu.watched() as seen:
        losses = run(
            tmp_path / "b.safetensors", device="cuda", bf16=bf16, standardise_on=None if bf16 else iter(blobs())
        )
    waits = [where for where in seen.waits.elements() if "pretraining_epochs.py" in where]
    assert waits == [waits[0]] * len(losses)
    assert losses == pytest.approx(run(tmp_path / "a.safetensors", bf16=bf16), rel=1e-3)


def test_too_little_memory_says_what_helps(tmp_path: Path, gpu: PretendedGPU) -> None:
    gpu.memory = 8 * 2**20
    with pytest.raises(OutOfMemory, match=r"pre-training \(CUDA out of memory.*lower the batch size.*bf16"):
        run(tmp_path / "b.safetensors", device="cuda", batch_size=8)
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.slow
def test_bfloat16_trains_alike_and_is_said_in_the_file(tmp_path: Path) -> None:
    full, half = run(tmp_path / "a.safetensors"), run(tmp_path / "b.safetensors", bf16=True)
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
    (a, said), (b, says) = (files.load_tensors(tmp_path / f"{name}.safetensors") for name in "ab")
    assert ("precision" in said, says["precision"]) == (False, "bf16")
    assert {key: value.dtype for key, value in a.items()} == {key: value.dtype for key, value in b.items()}


def spots(n: int = 8) -> list[torch.Tensor]:
    """Round coloured spots, from which a masked patch can be guessed."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    images = []
    for _ in range(n):
        centre, colour = torch.rand(2, generator=generator) * 32, torch.rand(3, 1, 1, generator=generator)
        images.append(colour * (-((axes[0] - centre[0]) ** 2 + (axes[1] - centre[1]) ** 2) / 80).exp())
    return images


@pytest.mark.slow
def test_colour_images_train_a_vision_transformer(tmp_path: Path) -> None:
    losses = run(tmp_path / "b.safetensors", size="vit_demo", images=spots(), epochs=20, lr=3e-3)
    assert losses[-1] < 0.8 * losses[0]
    network = VisionTransformer(replace(architecture("vit_demo").shape, image_size=(32, 32)), out_chans=3)
    info = load_backbone(network, tmp_path / "b.safetensors")
    assert (info.layout, info.skipped) == ("pretrained", ())
    weights, metadata = files.load_tensors(tmp_path / "b.safetensors")
    own = network.state_dict()
    assert own.keys() - weights.keys() == {"head.weight", "head.bias"}
    torch.testing.assert_close({key: own[key] for key in weights}, weights, rtol=0, atol=0)
    expected = {"architecture": "VisionTransformer", "size": "vit_demo", "image_size": "32x32", "n_channels": "3"}
    assert expected.items() <= metadata.items()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": []}, DataError, "no images"),
        ({"images": [torch.zeros(16, 16, 2)]}, DataError, "n_frames, X, Y, Z"),
        ({"images": [torch.zeros(SHAPE), torch.zeros(2, 16, 8, 2)]}, DataError, "one shape"),
        ({"images": [torch.zeros(2, 15, 16, 2)]}, ConfigError, "multiple of the token size"),
        ({"images": [torch.full(SHAPE, float("nan"))]}, ConfigError, "images hold NaN"),
        ({"epochs": 0}, ConfigError, "epochs must be positive"),
        ({"lr": -1.0}, ConfigError, "lr must be positive"),
        ({"mask_ratio": 1.5}, ConfigError, "mask_ratio"),
        ({"size": "vit_demo"}, DataError, "3, H, W"),
        ({"size": "vit_demo", "images": [torch.zeros(1, 16, 16)]}, DataError, "3, H, W"),
        ({"size": "vit_demo", "images": [torch.zeros(3, 16, 12)]}, ConfigError, "multiple of the patch"),
        ({"size": "giant"}, ConfigError, "no network size"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_writes_nothing(
    tmp_path: Path, changes: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path / "b.safetensors", **changes)
    assert list(tmp_path.iterdir()) == []
