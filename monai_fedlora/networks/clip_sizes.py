"""Shapes and normalisations of image towers with a text tower beside them, by name: those of the released weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from monai_fedlora.networks.architecture import Architecture, Colour
from monai_fedlora.networks.bert import BertSettings
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.vit import ViTSettings

Towers = tuple[ViTSettings, TextSettings | BertSettings]


def _rows(shapes: Mapping[str, Towers], *, source: str, mean: Colour, std: Colour) -> dict[str, Architecture]:
    return {
        name: Architecture(name=name, shape=image, text=text, mean=mean, std=std, source=source)
        for name, (image, text) in shapes.items()
    }


_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)

_BASE = ViTSettings(image_size=(224, 224), patch=16, dim=768, depth=12, n_heads=12)
_CLIP = replace(_BASE, activation="quick_gelu", norm_eps=1e-5, patch_bias=False, pre_norm=True)
_CLIP_TEXT = TextSettings(context=77, vocabulary=49408, dim=512, depth=12, n_heads=8, embed_dim=512)
# What laboratories trained with OpenCLIP, with the exact GELU.
_OPEN_CLIP = replace(_CLIP, activation="gelu")
_OPEN_CLIP_TEXT = replace(_CLIP_TEXT, activation="gelu")
_LARGE: dict[str, Any] = {"patch": 14, "dim": 1024, "depth": 24, "n_heads": 16}
_LARGE_TEXT: dict[str, Any] = {"dim": 768, "n_heads": 12, "embed_dim": 768}
_BIOMEDCLIP_TEXT = BertSettings(
    context=256, positions=512, vocabulary=30522, dim=768, depth=12, n_heads=12, embed_dim=512, end=3
)
_SIGLIP = replace(_BASE, activation="gelu_tanh", class_token=False, readout="map")
_SIGLIP_TEXT = TextSettings(
    context=64,
    vocabulary=32000,
    dim=768,
    depth=12,
    n_heads=12,
    embed_dim=768,
    tokens="siglip",
    activation="gelu_tanh",
    norm_eps=1e-6,
    causal=False,
    projection_bias=True,
    end=1,
)
_SIGLIP2_TEXT = replace(_SIGLIP_TEXT, vocabulary=256000, tokens="siglip2", pad=0)
_WIDE: dict[str, Any] = {"dim": 1024, "depth": 24, "n_heads": 16}
_SO400M: dict[str, Any] = {"dim": 1152, "depth": 27, "n_heads": 16, "mlp_ratio": 4304 / 1152}


def _siglip(text: TextSettings) -> Towers:
    return _SIGLIP, text


def _siglip_large(text: TextSettings) -> Towers:
    return replace(_SIGLIP, image_size=(256, 256), **_WIDE), replace(text, embed_dim=1024, **_WIDE)


def _siglip_so400m(text: TextSettings, *, side: int, patch: int = 14) -> Towers:
    image = replace(_SIGLIP, image_size=(side, side), patch=patch, **_SO400M)
    return image, replace(text, embed_dim=1152, **_SO400M)


CLIP_SIZES: Mapping[str, Architecture] = {
    **_rows(
        {
            # (ours) small enough to train on a laptop's CPU, with words for what synthetic photographs show.
            "clip_demo": (
                replace(_CLIP, image_size=(64, 64), patch=8, dim=96, depth=6, n_heads=4),
                TextSettings(context=32, vocabulary=896, dim=96, depth=3, n_heads=4, embed_dim=64),
            ),
            "clip_base_32": (replace(_CLIP, patch=32), _CLIP_TEXT),
            "clip_base_16": (_CLIP, _CLIP_TEXT),
            "clip_large_14": (replace(_CLIP, **_LARGE), replace(_CLIP_TEXT, **_LARGE_TEXT)),
        },
        source='Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", '
        "arXiv 2103.00020",
        mean=_CLIP_MEAN,
        std=_CLIP_STD,
    ),
    **_rows(
        {
            "open_clip_base_32": (replace(_OPEN_CLIP, patch=32), _OPEN_CLIP_TEXT),
            "open_clip_base_16": (_OPEN_CLIP, _OPEN_CLIP_TEXT),
            "open_clip_large_14": (replace(_OPEN_CLIP, **_LARGE), replace(_OPEN_CLIP_TEXT, **_LARGE_TEXT)),
            "open_clip_huge_14": (
                replace(_OPEN_CLIP, patch=14, dim=1280, depth=32, n_heads=16),
                replace(_OPEN_CLIP_TEXT, dim=1024, depth=24, n_heads=16, embed_dim=1024),
            ),
        },
        source='Cherti et al., "Reproducible scaling laws for contrastive language-image learning", arXiv 2212.07143',
        mean=_CLIP_MEAN,
        std=_CLIP_STD,
    ),
    **_rows(
        {"biomedclip_base_16": (_BASE, _BIOMEDCLIP_TEXT)},
        source='Zhang et al., "BiomedCLIP: a multimodal biomedical foundation model", arXiv 2303.00915',
        mean=_CLIP_MEAN,
        std=_CLIP_STD,
    ),
    **_rows(
        {
            "siglip_base_16": _siglip(_SIGLIP_TEXT),
            "siglip_large_16": _siglip_large(_SIGLIP_TEXT),
            # Released for 384 pixels, of which whole patches of 14 cover 378.
            "siglip_so400m_14": _siglip_so400m(_SIGLIP_TEXT, side=378),
        },
        source='Zhai et al., "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343',
        mean=_HALF,
        std=_HALF,
    ),
    **_rows(
        {
            "siglip2_base_16": _siglip(_SIGLIP2_TEXT),
            "siglip2_large_16": _siglip_large(_SIGLIP2_TEXT),
            "siglip2_so400m_14": _siglip_so400m(_SIGLIP2_TEXT, side=224),
            "siglip2_so400m_16": _siglip_so400m(_SIGLIP2_TEXT, side=256, patch=16),
        },
        source='Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders", arXiv 2502.14786',
        mean=_HALF,
        std=_HALF,
    ),
    **_rows(
        {"medsiglip_so400m_14": _siglip_so400m(_SIGLIP_TEXT, side=448)},
        source='Sellergren et al., "MedGemma Technical Report", arXiv 2507.05201',
        mean=_HALF,
        std=_HALF,
    ),
}
"""A checkpoint of the same layout has the name of the same shape; see :mod:`monai_fedlora.networks.image_sizes`."""
