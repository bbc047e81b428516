"""Shapes of vision transformers of pathology by name: those of the released weights."""

from __future__ import annotations

from dataclasses import replace

from monai_fedlora.networks.architecture import Architecture
from monai_fedlora.networks.vit import ViTSettings

_LARGE = ViTSettings(image_size=(224, 224), patch=16, dim=1024, depth=24, n_heads=16, layer_scale=True)
_GIANT = replace(_LARGE, dim=1536, n_heads=24, mlp_ratio=4096 / 1536, gated=True)
_HUGE = replace(_LARGE, patch=14, dim=1280, depth=32, mlp_ratio=3416 / 1280, gated=True)
_UNI = 'Chen et al., "Towards a general-purpose foundation model for computational pathology", Nature Medicine 2024'


def _row(name: str, shape: ViTSettings, source: str) -> Architecture:
    return Architecture(name=name, shape=shape, source=source, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


_ROWS = (
    _row("uni_large_16", _LARGE, _UNI),
    _row("uni2_giant_14", replace(_GIANT, patch=14, registers=8), f"{_UNI}; its second model"),
    _row(
        "gigapath_giant_16",
        replace(_GIANT, depth=40),
        'Xu et al., "A whole-slide foundation model for digital pathology from real-world data", Nature 2024',
    ),
    _row(
        "virchow_huge_14",
        _HUGE,
        'Vorontsov et al., "A foundation model for clinical-grade computational pathology and rare cancers detection", '
        "Nature Medicine 2024",
    ),
    _row(
        "virchow2_huge_14",
        replace(_HUGE, registers=4),
        'Zimmermann et al., "Virchow2: Scaling Self-Supervised Mixed Magnification Models in Pathology", '
        "arXiv 2408.00738",
    ),
)
PATHOLOGY_SIZES = {row.name: row for row in _ROWS}
