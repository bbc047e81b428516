"""Every argument of timm's that changes what is computed is compared with the size, or refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.timm_arguments import said_by_arguments
from monai_fedlora.networks.weights import load_backbone
from tests.networks.published import (
    DIM,
    HEADS,
    assert_refused,
    in_timms_names,
    network_of,
    randomised,
)

REFUSED: dict[str, Any] = {
    "qk_norm": True,
    "scale_attn_norm": True,
    "scale_mlp_norm": True,
    "proj_bias": False,
    "pos_embed": "none",
    "final_norm": False,
    "pool_include_prefix": True,
    "embed_layer": "hybrid_embed",
    "embed_norm_layer": "rmsnorm",
    "block_fn": "ResPostBlock",
    "attn_layer": "diff",
    "ffn_ratio": 2,
}
WITHOUT_EFFECT: dict[str, Any] = {
    "img_size": 518,
    "in_chans": 3,
    "num_classes": 0,
    "mlp_ratio": 4.0,
    "no_embed_class": False,
    "dynamic_img_size": True,
    "dynamic_img_pad": True,
    "drop_rate": 0.1,
    "pos_drop_rate": 0.1,
    "patch_drop_rate": 0.1,
    "proj_drop_rate": 0.1,
    "attn_drop_rate": 0.1,
    "drop_path_rate": 0.1,
    "weight_init": "skip",
    "fix_init": True,
}
SILENT: dict[str, Any] = {
    "qk_norm": False,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "proj_bias": True,
    "pos_embed": "learn",
    "final_norm": True,
    "pool_include_prefix": False,
    "embed_norm_layer": None,
}


def said(pool: str = "token", **given: Any) -> dict[str, Any]:
    return said_by_arguments(given, Path("config.json"), pool=pool)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computed_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"^config\.json .* with {name} .*attach"):
        said(**{name: REFUSED[name]})


def test_what_changes_nothing_says_nothing() -> None:
    assert said(**WITHOUT_EFFECT, **SILENT) == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"patch_size": [14, 14], "reg_tokens": 4}, {"patch": 14, "registers": 4}),
        ({"pre_norm": True, "class_token": False}, {"pre_norm": True, "class_token": False}),
        ({"init_values": 1e-5}, {"layer_scale": True}),
        ({"init_values": None}, {"layer_scale": False}),
        ({"norm_layer": "LayerNorm"}, {"norm_eps": 1e-6}),
        ({"norm_layer": None}, {"norm_eps": 1e-6}),
        ({"act_layer": "SWISH"}, {"activation": "silu", "gate": "silu"}),
        ({"act_layer": None}, {"activation": "gelu", "gate": "gelu"}),
        ({"mlp_layer": "Mlp"}, {"gated": False}),
        ({"mlp_layer": "SwiGLU", "act_layer": "silu"}, {"gated": True, "activation": "silu", "gate": "silu"}),
        ({"global_pool": "token"}, {"readout": "cls"}),
        ({"global_pool": "avg"}, {"readout": "mean"}),
        ({"global_pool": "avg", "fc_norm": None}, {"readout": "mean"}),
        ({"global_pool": "avg", "fc_norm": False}, {"readout": "mean_of_norm"}),
        ({"global_pool": "map"}, {"readout": "map"}),
        ({"global_pool": ""}, {}),
    ],
)
def test_what_is_computed_is_said_by_our_names(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert said(**given) == expected


def test_the_pool_of_the_architecture_counts_where_the_norm_alone_is_said() -> None:
    assert said(pool="avg", fc_norm=False) == {"readout": "mean_of_norm"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"norm_layer": "rmsnorm"}, "norm_layer 'rmsnorm'"),
        ({"norm_layer": "rms_norm"}, "norm_layer 'rms_norm'"),
        ({"mlp_layer": "GluMlp", "act_layer": "silu"}, "mlp_layer 'GluMlp'"),
        ({"mlp_layer": "SwiGLUPacked"}, "no act_layer, with which timm's code gates by a GELU"),
        ({"global_pool": "avgmax"}, "global_pool 'avgmax'"),
        ({"global_pool": "token", "fc_norm": True}, "fc_norm True"),
        ({"global_pool": "", "fc_norm": True}, "fc_norm True"),
    ],
)
def test_layers_and_pools_that_are_not_computed_are_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(WeightsError, match=named):
        said(**given)


# ---- folders -------------------------------------------------------------------------------------------


def folder_of_timm(tmp_path: Path, *, gated: bool, architecture: str = "vit_giant_patch8_224", **given: Any) -> Path:
    state = in_timms_names(randomised(network_of(gated=gated)))
    if gated:
        state = {key.replace("mlp.gate", "mlp.fc1_g").replace("mlp.fc1.", "mlp.fc1_x."): v for key, v in state.items()}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
    content = {
        "architecture": architecture,
        "num_features": DIM,
        "model_args": {"num_heads": HEADS, **given},
        "pretrained_cfg": {},
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "assumed"),
    [
        ({}, ("activation silu of gates",)),
        ({"architecture": "vit_giant_patch14_reg4_dinov2"}, ()),
        ({"act_layer": "silu"}, ()),
        ({"act_layer": "swish", "mlp_layer": "SwiGLU"}, ()),
    ],
)
def test_a_gate_of_a_silu_is_read_and_one_that_nothing_tells_is_said(
    given: dict[str, Any], assumed: tuple[str, ...], tmp_path: Path
) -> None:
    folder = folder_of_timm(tmp_path, gated=True, **given)
    assert load_backbone(network_of(gated=True), folder).assumed == assumed


@pytest.mark.parametrize(
    ("gated", "given", "named"),
    [
        (True, {"act_layer": "gelu"}, "gate is gelu instead of silu"),
        (True, {"act_layer": "sigmoid", "mlp_layer": "SwiGLUPacked"}, "gate is sigmoid instead of silu"),
        (True, {"mlp_layer": "Mlp"}, "gated is False instead of True"),
        (True, {"mlp_layer": "GluMlp"}, "mlp_layer 'GluMlp'"),
        (False, {"act_layer": "silu"}, "activation is silu instead of gelu"),
        (False, {"mlp_layer": "SwiGLU", "act_layer": "silu"}, "gated is True instead of False"),
        (False, {"pre_norm": True}, "pre_norm is True instead of False"),
        (False, {"init_values": 1e-5}, "layer_scale is True instead of False"),
        (False, {"class_token": False}, "class_token is False instead of True"),
        (False, {"global_pool": "avg", "fc_norm": False}, "readout is mean_of_norm instead of cls"),
        (False, {"qk_norm": True}, "qk_norm True"),
        (False, {"rope": True}, "rope True"),
    ],
)
def test_a_folder_that_computes_otherwise_is_refused(
    gated: bool, given: dict[str, Any], named: str, tmp_path: Path
) -> None:
    assert_refused(network_of(gated=gated), folder_of_timm(tmp_path, gated=gated, **given), "config.json", named)


def test_arguments_without_names_are_a_damaged_description(tmp_path: Path) -> None:
    folder = folder_of_timm(tmp_path, gated=False)
    content = json.loads((folder / "config.json").read_text()) | {"model_args": ["qk_norm"]}
    (folder / "config.json").write_text(json.dumps(content))
    assert_refused(network_of(), folder, "config.json", "it is damaged")
