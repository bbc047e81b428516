"""Image towers of OpenCLIP, OpenAI, BiomedCLIP and SigLIP compute what their authors' code computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from tests.networks.published import assert_refused, images, tensors_file
from tests.networks.towers import (
    HEADS,
    LAYERS,
    PATCH,
    WIDTH,
    QuickGelu,
    biomedclip,
    image_tower,
    open_clip,
    open_siglip,
    siglip,
)

CLIP = {"norm_eps": 1e-5, "patch_bias": False, "pre_norm": True, "activation": "gelu"}
POOLED = {"class_token": False, "readout": "map", "activation": "gelu_tanh"}
X = images()


def pooled(network: VisionTransformer, x: Tensor = X) -> Tensor:
    return network.pool(network.prefix(x, LAYERS))


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
@torch.no_grad()
def test_openclip(tmp_path: Path, apart: bool) -> None:
    model: Any = open_clip(apart=apart)
    network = image_tower(**CLIP)
    describe(tmp_path)
    info = load_backbone(network, tensors_file(model, tmp_path))
    assert_equal(pooled(network), model.visual.pooled(X))
    assert "visual.proj" in info.skipped
    assert any("token_embedding" in key for key in info.skipped)


@torch.no_grad()
def test_biomedclip(tmp_path: Path) -> None:
    model: Any = biomedclip()
    network = image_tower()
    info = load_backbone(network, tensors_file(model, tmp_path))
    assert_equal(pooled(network), model.visual.trunk(X))
    assert "visual.head.proj.weight" in info.skipped


@torch.no_grad()
def test_siglip_of_transformers(tmp_path: Path) -> None:
    model: Any = siglip()
    network = image_tower(**POOLED, mlp_ratio=60 / WIDTH)
    model.save_pretrained(tmp_path)
    load_backbone(network, tmp_path)
    assert_equal(pooled(network), model.vision_model(X).pooler_output)


@torch.no_grad()
def test_siglip_of_openclip(tmp_path: Path) -> None:
    model: Any = open_siglip()
    network = image_tower(**POOLED)
    load_backbone(network, tensors_file(model, tmp_path))
    assert_equal(pooled(network), model.visual.trunk(X))


@torch.no_grad()
def test_siglip_of_timm(tmp_path: Path) -> None:
    model: Any = open_siglip()
    network = image_tower(**POOLED)
    load_backbone(network, tensors_file(model.visual.trunk, tmp_path))
    assert_equal(pooled(network), model.visual.trunk(X))


@torch.no_grad()
def test_siglip_in_our_own_names(tmp_path: Path) -> None:
    network, again = image_tower(**POOLED), image_tower(**POOLED, seed=1)
    load_backbone(again, tensors_file(network, tmp_path))
    assert_equal(again(X), network(X))


@pytest.mark.parametrize(
    ("model", "shape", "named"),
    [
        (siglip, CLIP, "embeddings.class_embedding"),
        (open_clip, POOLED, "attention_pool"),
        (open_siglip, {"class_token": False, "readout": "mean"}, "attn_pool.latent"),
        (biomedclip, {"depth": LAYERS + 1}, "visual.trunk.blocks.2"),
    ],
)
def test_another_image_tower_is_refused(
    tmp_path: Path, model: Callable[[], nn.Module], shape: dict[str, Any], named: str
) -> None:
    assert_refused(image_tower(**shape), tensors_file(model(), tmp_path), named)


def open_clip_folder(folder: Path, *, quick_gelu: bool = False) -> Path:
    """A folder as OpenCLIP writes it."""
    model = open_clip(QuickGelu if quick_gelu else nn.GELU)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return describe(folder, quick_gelu=quick_gelu)


def describe(folder: Path, *, quick_gelu: bool = False) -> Path:
    vision = {"image_size": 32, "layers": LAYERS, "width": WIDTH, "head_width": WIDTH // HEADS, "patch_size": PATCH}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": {}, "quick_gelu": quick_gelu}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


@torch.no_grad()
def test_the_folder_of_openclip_says_the_activation(tmp_path: Path) -> None:
    open_clip_folder(tmp_path)
    network = image_tower(**CLIP)
    assert load_backbone(network, tmp_path).assumed == ()
    model: Any = open_clip()
    assert_equal(pooled(network), model.visual.pooled(X))
    open_clip_folder(tmp_path, quick_gelu=True)
    assert_refused(image_tower(**CLIP), tmp_path, "open_clip_config.json", "activation is quick_gelu instead of gelu")
    load_backbone(image_tower(**CLIP | {"activation": "quick_gelu"}), tmp_path / "open_clip_pytorch_model.bin")
    assert_refused(image_tower(**CLIP | {"n_heads": 4}), tmp_path, "n_heads is 2 instead of 4")
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    assert_refused(image_tower(**CLIP), tmp_path, "holds no weights; one of open_clip_model.safetensors")


def test_a_program_is_refused_with_what_saves_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ViT-Z-8.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    with pytest.raises(WeightsError, match="a program of TorchScript, as OpenAI publishes CLIP") as caught:
        load_backbone(image_tower(), path)
    monkeypatch.chdir(tmp_path)
    lines = str(caught.value).partition("ViT-Z-8_state.pt: ")[2]
    exec(lines, {"torch": torch})
    assert set(torch.load(tmp_path / "ViT-Z-8_state.pt", weights_only=True)) == {"weight", "bias"}


@torch.no_grad()
def test_the_state_of_openais_program_loads(tmp_path: Path) -> None:
    model: Any = open_clip(QuickGelu)
    sizes = {"input_resolution": 32, "context_length": 8, "vocab_size": 40}
    state = {key: value.half() for key, value in model.state_dict().items()}
    torch.save(state | {name: torch.tensor(value) for name, value in sizes.items()}, tmp_path / "ViT-Z-8_state.pt")
    path, quick = tmp_path / "ViT-Z-8_state.pt", CLIP | {"activation": "quick_gelu"}
    network = image_tower(**quick)
    info = load_backbone(network, path)
    assert set(sizes) < set(info.skipped) and info.assumed == ("n_heads 2", "norm_eps 1e-05")
    assert_refused(image_tower(**CLIP), path, "of OpenAI's CLIP (sizes clip_*), of which activation is quick_gelu")
    model.load_state_dict({key: value.float() for key, value in state.items()})
    assert_equal(pooled(network), model.visual.pooled(X))
