"""Small networks of timm, torchvision and OpenCLIP themselves, where these are installed: the same features.

They are no dependencies: ``pip install --no-deps timm torchvision open_clip_torch ftfy wcwidth``, torchvision from the
index that torch is from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_fedlora.networks.clip_text import load_clip_text
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import backbone_sha256, load_backbone
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.published import CLIP, DEPTH, DIM, HEADS, PATCH, SIDE, images, network_of, randomised
from tests.networks.test_published_layouts import SCALED
from tests.networks.test_resized_positions import resizing_of

timm: Any = pytest.importorskip("timm")
torchvision: Any = pytest.importorskip("torchvision")
open_clip: Any = pytest.importorskip("open_clip")

pytestmark = pytest.mark.slow

State = dict[str, Tensor]


def assert_features(
    features: Callable[[int], tuple[State, Callable[[Tensor], Tensor]]], path: Path, **options: Any
) -> None:
    """For the released size, for one smaller and one larger, and for such images in a network of the released size.

    ``features`` gives the released tensors, and what the library computes at a size.
    """
    for side in (SIDE, 24, 72):
        state, expected = features(side)
        torch.save(state, path)
        for built_for in {side, SIDE}:
            network: VisionTransformer = network_of(side=built_for, **options)
            load_backbone(network, path, sha256=backbone_sha256(path))  # who made the pin had a description
            found = network.pool(network.prefix(images(side), DEPTH))
            torch.testing.assert_close(found, expected(images(side)), rtol=1e-5, atol=1e-5)


# ---- timm ----------------------------------------------------------------------------------------------

GATED: dict[str, Any] = {**SCALED, "gated": True, "mlp_ratio": 3}
POOLED = {"class_token": False, "readout": "map", "activation": "gelu_tanh"}
SCALE = {"init_values": 1e-5}


def gate(layer: str, ratio: int) -> dict[str, Any]:
    return {**SCALE, "mlp_layer": getattr(timm.layers, layer), "act_layer": nn.SiLU, "mlp_ratio": ratio}


TIMM: dict[str, tuple[str, Callable[[], dict[str, Any]], dict[str, Any]]] = {
    "ViT": ("vit_base_16", dict, {}),
    "ViT, mean": ("vit_base_16", lambda: {"global_pool": "avg"}, {"readout": "mean"}),
    "UNI": ("uni_large_16", lambda: SCALE, SCALED),
    "UNI 2": (
        "uni2_giant_14",
        lambda: gate("SwiGLU", 3) | {"reg_tokens": 8, "no_embed_class": True},
        {**GATED, "registers": 8},
    ),
    "DINOv2": ("dinov2_base_14", lambda: SCALE, SCALED),
    "DINOv2, registers": (
        "dinov2_base_reg_14",
        lambda: SCALE | {"reg_tokens": 4, "no_embed_class": True},
        {**SCALED, "registers": 4},
    ),
    "DINOv2, giant": ("dinov2_giant_14", lambda: gate("SwiGLUPacked", 6), GATED),
    "DeiT III": ("deit3_base_16", lambda: SCALE | {"no_embed_class": True}, SCALED),
    "CLIP": (
        "clip_base_16",
        lambda: {"pre_norm": True, "act_layer": "quick_gelu", "norm_layer": partial(nn.LayerNorm, eps=1e-5)},
        CLIP,
    ),
    "SigLIP": (
        "siglip_base_16",
        lambda: {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"},
        POOLED,
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, tmp_path: Path) -> None:
    size, given, options = TIMM[name]
    code = timm.models.vision_transformer
    shape = {"patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0}

    def build(side: int) -> Any:
        return code.VisionTransformer(img_size=side, **shape, **given()).eval()

    released = randomised(build(SIDE)).state_dict()

    def features(side: int) -> tuple[State, Callable[[Tensor], Tensor]]:
        model = build(side)
        model.load_state_dict(code.checkpoint_filter_fn(dict(released), model))
        return released, lambda x: model.forward_head(model.forward_features(x), pre_logits=True)

    assert_features(features, tmp_path / "w.pth", **options, resizing=resizing_of(size))


@pytest.mark.parametrize("layer", ["SwiGLU", "SwiGLUPacked"])
def test_without_a_word_timm_gates_by_a_gelu(layer: str) -> None:
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=DIM, depth=1, num_heads=HEADS, mlp_layer=getattr(timm.layers, layer)
    )
    assert type(model.blocks[0].mlp.act) is nn.GELU


# ---- torchvision and OpenCLIP --------------------------------------------------------------------------


@torch.no_grad()
def test_torchvision(tmp_path: Path) -> None:
    code = torchvision.models.vision_transformer
    shape = {"num_layers": DEPTH, "num_heads": HEADS, "hidden_dim": DIM, "mlp_dim": 4 * DIM}

    def build(side: int) -> Any:
        return code.VisionTransformer(image_size=side, patch_size=PATCH, **shape).eval()

    released = randomised(build(SIDE)).state_dict()

    def features(side: int) -> tuple[State, Callable[[Tensor], Tensor]]:
        model = build(side)
        model.load_state_dict(code.interpolate_embeddings(side, PATCH, dict(released)))
        model.heads = nn.Identity()
        return released, model

    assert_features(features, tmp_path / "w.pth", resizing=resizing_of("torchvision_vit_base_16"))


@torch.no_grad()
@pytest.mark.parametrize(("quick", "size"), [(True, "clip_base_16"), (False, "open_clip_base_16")])
def test_openclip(quick: bool, size: str, tmp_path: Path) -> None:
    """Both towers, the images' with a projection that changes nothing, because ours leaves it out."""
    code = open_clip.model

    def build(side: int) -> Any:
        shape = {"layers": DEPTH, "width": DIM, "head_width": DIM // HEADS, "patch_size": PATCH, "image_size": side}
        text = {"context_length": 8, "vocab_size": 40, "width": DIM, "heads": HEADS, "layers": 2}
        return code.CLIP(DIM, code.CLIPVisionCfg(**shape), code.CLIPTextCfg(**text), quick_gelu=quick).eval()

    whole = randomised(build(SIDE))
    whole.visual.proj.copy_(torch.eye(DIM))
    released = whole.state_dict()

    def features(side: int) -> tuple[State, Callable[[Tensor], Tensor]]:
        model, state = build(side), dict(released)
        code.resize_pos_embed(state, model)
        model.load_state_dict(state)
        return released, model.visual

    activation: Any = "quick_gelu" if quick else "gelu"
    options = {**CLIP, "activation": activation, "resizing": resizing_of(size)}
    assert_features(features, tmp_path / "w.pth", **options)
    settings = TextSettings(
        context=8, vocabulary=40, dim=DIM, depth=2, n_heads=HEADS, embed_dim=DIM, activation=activation
    )
    tower = load_clip_text(find_weights(tmp_path / "w.pth"), settings, dim=DIM).tower
    ids = torch.randint(0, 39, (5, 8), generator=torch.Generator().manual_seed(0))
    ids[:, 5] = 39
    torch.testing.assert_close(tower(ids), whole.encode_text(ids), rtol=1e-5, atol=1e-5)
