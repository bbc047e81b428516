"""What the name of timm's architecture, and of its weights, tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.timm_config import timm_settings

NOTE = "natively QuickGELU, use quickgelu model variant for original results"


def said(architecture: str, *, cfg: dict[str, Any] | None = None, **content: Any) -> dict[str, Any]:
    return timm_settings({"architecture": architecture, "pretrained_cfg": cfg or {}, **content}, Path("config.json"))


@pytest.mark.parametrize(
    ("architecture", "heads"),
    [
        ("vit_tiny_patch16_224", 3),
        ("deit3_medium_patch16_224", 8),
        ("vit_base_patch16_gap_224", 16),  # timm's own exception
        ("vit_base_patch16_siglip_gap_224", 12),
        ("vit_giant_patch14_224", 16),
        ("vit_giant_patch14_dinov2", 24),
        ("vit_base_patch16_plus_clip_240", None),
        ("vit_wee_patch16_reg1_gap_256", None),
    ],
)
def test_the_size_in_a_name_tells_the_heads(architecture: str, heads: int | None) -> None:
    assert said(architecture).get("n_heads") == heads


@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_rpn_224", "vit_small_patch16_rope_ape_224", "vit_relpos_base_224", "vit_base_patch16_lingbot"],
)
def test_what_leaves_no_trace_among_tensors_is_refused_by_the_name(name: str) -> None:
    with pytest.raises(WeightsError, match=f"{name}, which is not supported"):
        said(name)


@pytest.mark.parametrize(
    ("architecture", "cfg", "activation"),
    [
        ("vit_base_patch16_clip_224", {"tag": "openai"}, "quick_gelu"),
        ("vit_base_patch16_clip_224.openai", {}, "quick_gelu"),
        ("vit_base_patch16_clip_224", {"tag": "openai", "num_classes": 512}, "quick_gelu"),
        ("vit_base_patch32_clip_224", {"tag": "laion400m_e32", "notes": [NOTE]}, "quick_gelu"),
        ("vit_base_patch16_clip_quickgelu_224", {"tag": "openai"}, "quick_gelu"),
        ("vit_base_patch16_clip_224", {"tag": "laion2b"}, "gelu"),
        ("vit_base_patch16_clip_224", {"tag": "openai_ft_in1k"}, "gelu"),
        ("vit_base_patch16_224", {"tag": "openai"}, "gelu"),
    ],
)
def test_weights_of_a_quick_gelu_are_computed_with_it(architecture: str, cfg: dict[str, Any], activation: str) -> None:
    assert said(architecture, cfg=cfg)["activation"] == activation
    assert said(architecture, cfg=cfg, model_args={"act_layer": "gelu"})["activation"] == "gelu"


@pytest.mark.parametrize("named", ["gelu", "quick_gelu"])
def test_weights_trained_further_have_to_say_their_activation(named: str) -> None:
    content: dict[str, Any] = {"cfg": {"tag": "openai", "num_classes": 512}, "num_classes": 7}
    with pytest.raises(WeightsError, match='"act_layer": "gelu"'):
        said("vit_base_patch16_clip_224", **content)
    assert said("vit_base_patch16_clip_224", **content, model_args={"act_layer": named})["activation"] == named
