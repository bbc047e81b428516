"""What no name or shape tells of weights without a description: compared, refused, or said to be assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from monai_fedlora.files import save_tensors
from monai_fedlora.networks.architecture import Architecture
from monai_fedlora.networks.fits import find_fits
from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.networks.weights import backbone_sha256, load_backbone
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.published import (
    CLIP,
    HF,
    assert_refused,
    images,
    in_timms_names,
    network_of,
    randomised,
    tensors_file,
)
from tests.networks.towers import image_tower, open_clip

OPEN_CLIP = {**CLIP, "activation": "gelu"}


def clip_of_transformers() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**HF))


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("names", ["OpenCLIP", "transformers"])
def test_a_clip_whose_activation_nothing_tells_is_refused(names: str, activation: str, tmp_path: Path) -> None:
    settings = {**CLIP, "activation": activation}
    if names == "OpenCLIP":
        network, path = image_tower(**settings), tensors_file(open_clip(), tmp_path)
    else:
        clip_of_transformers().save_pretrained(tmp_path / "hf")
        network, path = (
            network_of(**settings),
            (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "w.safetensors"),
        )
    advice = ("nothing beside", path.name, "config.json or open_clip_config.json", "clip_*", "open_clip_*")
    assert_refused(network, path, *advice)


def test_a_pinned_clip_needs_no_description(tmp_path: Path) -> None:
    """Who made the pin had it beside the file; a site has the file."""
    path = tensors_file(open_clip(), tmp_path)
    info = load_backbone(image_tower(**OPEN_CLIP), path, sha256=backbone_sha256(path))
    assert info.assumed == ("n_heads 2", "activation gelu", "norm_eps 1e-05")


def test_a_file_of_our_own_names_tells_nothing_and_is_a_size_of_ours(tmp_path: Path) -> None:
    assert load_backbone(image_tower(), tensors_file(image_tower(), tmp_path)).assumed == ()


def test_a_file_that_says_its_size_has_that_sizes_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = (0.5, 0.5, 0.5)
    row = Architecture(name="own", shape=image_tower(**CLIP).settings, source="us", mean=levels, std=levels)
    monkeypatch.setitem(IMAGE_SIZES, "own", row)
    save_tensors(tmp_path / "w.safetensors", open_clip().state_dict(), {"size": "own", "seed": "1"})
    assert load_backbone(image_tower(**CLIP), tmp_path / "w.safetensors").assumed == ()
    said = "is of the size own, as it says itself, of which activation is quick_gelu, not gelu"
    assert_refused(image_tower(**OPEN_CLIP), tmp_path / "w.safetensors", said)


@pytest.mark.parametrize("numbers", [True, False])
def test_a_description_of_laions_beside_openais_own_file_is_a_contradiction(numbers: bool, tmp_path: Path) -> None:
    state, shape = open_clip().state_dict(), image_tower(**OPEN_CLIP).settings
    if numbers:
        state |= {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save(state, tmp_path / "w.pth")
    config = {"model_type": "clip_vision_model", "hidden_act": "gelu", "hidden_size": shape.dim}
    config |= {"num_hidden_layers": shape.depth, "num_attention_heads": shape.n_heads, "patch_size": shape.patch}
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": shape.mlp_width}))
    if not numbers:
        load_backbone(image_tower(**OPEN_CLIP), tmp_path / "w.pth")
        return
    said = ("OpenAI's CLIP", "activation is quick_gelu, not gelu", "take away the description")
    assert_refused(image_tower(**OPEN_CLIP), tmp_path / "w.pth", *said)


def test_a_description_of_six_heads_beside_mocos_table_is_a_contradiction(tmp_path: Path) -> None:
    path = timms(randomised(small(heads=12)), tmp_path, sine_cosine(rows_first=True))
    config: dict[str, Any] = {"architecture": "vit_small_patch8_224", "model_args": {}, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_refused(small(heads=6), path, "MoCo v3's ViT-S", "n_heads is 12, not 6", "take away the description")
    config["model_args"]["num_heads"] = 12
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_backbone(small(heads=12), path).assumed == ()


# ---- heads ---------------------------------------------------------------------------------------------

SMALL, SIDE = 384, 48


def small(*, heads: int) -> VisionTransformer:
    return network_of(dim=SMALL, depth=1, n_heads=heads, side=SIDE, mlp_ratio=1)


def sine_cosine(*, rows_first: bool) -> Tensor:
    """As MoCo v3's and MAE's code build it, in float64."""
    count = SIDE // 8
    omega = 10000.0 ** (-torch.arange(SMALL // 4, dtype=torch.float64) / (SMALL // 4))
    rows, columns = torch.meshgrid(torch.arange(count).double(), torch.arange(count).double(), indexing="ij")
    axes = (rows, columns) if rows_first else (columns, rows)
    angles = [axis.reshape(-1, 1) * omega for axis in axes]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()


def timms(network: VisionTransformer, folder: Path, table: Tensor | None) -> Path:
    state = in_timms_names(network, depth=1)
    if table is not None:
        state["pos_embed"] = torch.cat([torch.zeros(1, 1, SMALL), table.unsqueeze(0)], dim=1)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "w.safetensors")
    return folder / "w.safetensors"


def test_mocos_small_network_has_twelve_heads(tmp_path: Path) -> None:
    source = randomised(small(heads=12))
    path = timms(source, tmp_path, sine_cosine(rows_first=True))
    network = small(heads=12)
    assert load_backbone(network, path).assumed == ("activation gelu", "norm_eps 1e-06")
    said = "is of MoCo v3's ViT-S (moco_small_16), of which n_heads is 12, not 6"
    assert_refused(small(heads=6), path, said)
    assert_refused(small(heads=6), path, said, sha256=backbone_sha256(path))
    x = images(SIDE)
    with torch.no_grad():
        source.embed.position.copy_(sine_cosine(rows_first=True))
        source.embed.cls.copy_(network.embed.cls)
        torch.testing.assert_close(network.prefix(x, 1).tokens, source.prefix(x, 1).tokens, rtol=1e-5, atol=1e-5)


def test_a_small_auto_encoder_whose_heads_nothing_tells_is_refused(tmp_path: Path) -> None:
    path = timms(randomised(small(heads=6)), tmp_path, sine_cosine(rows_first=False))
    for heads in (6, 12):
        assert_refused(small(heads=heads), path, "number of heads", "config.json", '"num_heads": HEADS')
    config = {"architecture": "vit_small_patch16_224", "model_args": {"num_heads": 12}, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_refused(small(heads=6), path, "n_heads is 12 instead of 6")
    load_backbone(small(heads=12), path)


def test_learned_positions_leave_the_heads_to_the_size(tmp_path: Path) -> None:
    path = timms(randomised(small(heads=6)), tmp_path, None)
    assert "n_heads 6" in load_backbone(small(heads=6), path).assumed


def test_sizes_that_differ_in_heads_alone_are_shown_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, heads in {"tiny_dino": 6, "tiny_moco": 12}.items():
        shape: ViTSettings = small(heads=heads).settings
        levels = (0.5, 0.5, 0.5)
        row = Architecture(name=name, shape=shape, source="nobody", mean=levels, std=levels)
        monkeypatch.setitem(IMAGE_SIZES, name, row)
    path = timms(randomised(small(heads=12)), tmp_path, sine_cosine(rows_first=True))
    tried = {fit.architecture.name: fit.problem for fit in find_fits(path, find_weights(path)).sizes}
    assert tried["tiny_moco"] == "" and "n_heads is 12, not 6" in tried["tiny_dino"]


# ---- rotary positions, gates ---------------------------------------------------------------------------


def test_a_file_of_deit_iiis_names_may_have_rotary_positions(tmp_path: Path) -> None:
    network = network_of(layer_scale=True)
    state = in_timms_names(randomised(network_of(layer_scale=True)))
    state["pos_embed"] = state["pos_embed"][:, 1:]
    turned = "that no rotary positions are added to the learned ones (as timm's vit_*_rope_ape_* adds them)"
    for name, said in (("ls1.gamma", False), ("gamma_1", True)):
        ours = {
            key.replace("ls1.gamma", name).replace("ls2.gamma", name.replace("1", "2")): state[key] for key in state
        }
        save_file({key: value.contiguous() for key, value in ours.items()}, tmp_path / f"{name}.safetensors")
        assert (turned in load_backbone(network, tmp_path / f"{name}.safetensors").assumed) == said


def test_what_gates_is_said_instead_of_the_activation(tmp_path: Path) -> None:
    state = in_timms_names(randomised(network_of(gated=True)))
    state = {key.replace("mlp.gate", "mlp.fc1_g").replace("mlp.fc1.", "mlp.fc1_x."): v for key, v in state.items()}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    assumed = load_backbone(network_of(gated=True), tmp_path / "w.safetensors").assumed
    assert assumed == ("n_heads 2", "activation silu of gates", "norm_eps 1e-06")
