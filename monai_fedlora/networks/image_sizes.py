"""Shapes and normalisations of vision transformers by name: those of the released weights.

A plan, a bundle and an exported model name a backbone by these names; none is ever changed.
"""

from __future__ import annotations

from dataclasses import replace

from monai_fedlora.networks.architecture import Architecture, Colour
from monai_fedlora.networks.clip_sizes import CLIP_SIZES
from monai_fedlora.networks.pathology_sizes import PATHOLOGY_SIZES
from monai_fedlora.networks.vit import ViTSettings


def _image_rows(
    shapes: dict[str, ViTSettings], *, source: str, mean: Colour = (0.5, 0.5, 0.5), std: Colour = (0.5, 0.5, 0.5)
) -> dict[str, Architecture]:
    return {
        name: Architecture(name=name, shape=shape, mean=mean, std=std, source=source) for name, shape in shapes.items()
    }


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_TINY = ViTSettings(image_size=(224, 224), patch=16, dim=192, depth=12, n_heads=3)
_SMALL = ViTSettings(image_size=(224, 224), patch=16, dim=384, depth=12, n_heads=6)
_BASE = ViTSettings(image_size=(224, 224), patch=16, dim=768, depth=12, n_heads=12)
_LARGE = ViTSettings(image_size=(224, 224), patch=16, dim=1024, depth=24, n_heads=16)
_DINOV2_LARGE = replace(_LARGE, patch=14, layer_scale=True)
_DINOV2_GIANT = replace(_DINOV2_LARGE, dim=1536, depth=40, n_heads=24, mlp_ratio=4096 / 1536, gated=True)

_DINOV3 = 'Simeoni et al., "DINOv3", arXiv 2508.10104'


def _dinov3(shape: ViTSettings, *, gated: bool = False) -> ViTSettings:
    return replace(shape, norm_eps=1e-5, key_bias=False, layer_scale=True, registers=4, positions="rotary", gated=gated)


IMAGE_SIZES: dict[str, Architecture] = {
    **_image_rows(
        {
            # (ours) small enough to train on a laptop's CPU.
            "vit_demo": ViTSettings(image_size=(64, 64), patch=8, dim=96, depth=6, n_heads=4),
            "vit_small_16": replace(_SMALL, norm_eps=1e-12),
            "vit_base_16": replace(_BASE, norm_eps=1e-12),
            "vit_large_16": replace(_LARGE, norm_eps=1e-12),
        },
        source='Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929',
    ),
    **_image_rows(
        {"mae_base_16": replace(_BASE, resizing="plain", readout="mean")},
        source='He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        # Of its small network every head has 32 channels.
        {
            "moco_small_16": replace(_SMALL, n_heads=12, resizing="plain"),
            "moco_base_16": replace(_BASE, resizing="plain"),
        },
        source='Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers", arXiv 2104.02057',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        # Without a class token; what is read of it is transformers', the mean of the normalised tokens.
        {
            "ijepa_huge_14": replace(
                _BASE,
                patch=14,
                dim=1280,
                depth=32,
                n_heads=16,
                class_token=False,
                resizing="plain",
                readout="mean_of_norm",
            )
        },
        source='Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", '
        "arXiv 2301.08243",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {"retfound_large_16": replace(_LARGE, resizing="plain", readout="mean")},
        source='Zhou et al., "A foundation model for generalizable disease detection from retinal images", Nature 2023',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {
            "dinov2_small_14": replace(_SMALL, patch=14, layer_scale=True, resizing="offset"),
            "dinov2_base_14": replace(_BASE, patch=14, layer_scale=True, resizing="offset"),
            "dinov2_large_14": replace(_DINOV2_LARGE, resizing="offset"),
            "dinov2_giant_14": replace(_DINOV2_GIANT, resizing="offset"),
        },
        source='Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", arXiv 2304.07193',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {
            "dinov2_small_reg_14": replace(_SMALL, patch=14, layer_scale=True, registers=4),
            "dinov2_base_reg_14": replace(_BASE, patch=14, layer_scale=True, registers=4),
            "dinov2_large_reg_14": replace(_DINOV2_LARGE, registers=4),
            "dinov2_giant_reg_14": replace(_DINOV2_GIANT, registers=4),
        },
        source='Darcet et al., "Vision Transformers Need Registers", arXiv 2309.16588',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {"retfound_dinov2_large_14": replace(_DINOV2_LARGE, resizing="plain")},
        source='Zhou et al., "A foundation model for generalizable disease detection from retinal images", Nature 2023',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {"rad_dino_base_14": replace(_BASE, image_size=(518, 518), patch=14, layer_scale=True, resizing="offset")},
        source='Perez-Garcia et al., "Exploring scalable medical image encoders beyond text supervision", Nature '
        "Machine Intelligence 2025",
        mean=(0.5307, 0.5307, 0.5307),
        std=(0.2583, 0.2583, 0.2583),
    ),
    **PATHOLOGY_SIZES,
    **_image_rows(
        {
            "dino_small_16": replace(_SMALL, resizing="offset"),
            "dino_small_8": replace(_SMALL, patch=8, resizing="offset"),
            "dino_base_16": replace(_BASE, resizing="offset"),
            "dino_base_8": replace(_BASE, patch=8, resizing="offset"),
        },
        source='Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", arXiv 2104.14294',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {
            "deit_tiny_16": replace(_TINY, resizing="plain"),
            "deit_small_16": replace(_SMALL, resizing="plain"),
            "deit_base_16": replace(_BASE, resizing="plain"),
            # The token that was distilled into attends to all others, as a register does.
            "deit_tiny_distilled_16": replace(_TINY, registers=1, resizing="plain"),
            "deit_small_distilled_16": replace(_SMALL, registers=1, resizing="plain"),
            "deit_base_distilled_16": replace(_BASE, registers=1, resizing="plain"),
        },
        source='Touvron et al., "Training data-efficient image transformers", arXiv 2012.12877',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {
            "deit3_small_16": replace(_SMALL, layer_scale=True),
            "deit3_base_16": replace(_BASE, layer_scale=True),
            "deit3_large_16": replace(_LARGE, layer_scale=True),
        },
        source='Touvron et al., "DeiT III: Revenge of the ViT", arXiv 2204.07118',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {
            "torchvision_vit_base_16": _BASE,
            "torchvision_vit_base_32": replace(_BASE, patch=32),
            "torchvision_vit_large_16": _LARGE,
        },
        source='Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; weights of torchvision',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {
            "dinov3_small_16": _dinov3(_SMALL),
            "dinov3_small_plus_16": _dinov3(_SMALL, gated=True),
            "dinov3_base_16": _dinov3(_BASE),
            "dinov3_large_16": _dinov3(_LARGE),
            "dinov3_huge_plus_16": _dinov3(replace(_BASE, dim=1280, depth=32, n_heads=20), gated=True),
        },
        source=_DINOV3,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        # Of satellite images.
        {"dinov3_sat_large_16": _dinov3(_LARGE)},
        source=_DINOV3,
        mean=(0.430, 0.411, 0.296),
        std=(0.213, 0.156, 0.143),
    ),
    **CLIP_SIZES,
    **_image_rows(
        # MONAI's defaults; no weights of it are published, so that the normalisation is ours.
        {
            "monai_vit_base_16": replace(_BASE, norm_eps=1e-5, qkv_bias=False),
            # As of its UNETR and its auto-encoder, which have no class token; what is read of them is ours.
            "monai_vit_base_16_patches": replace(
                _BASE, norm_eps=1e-5, qkv_bias=False, class_token=False, readout="mean_of_norm"
            ),
        },
        source='Cardoso et al., "MONAI: An open-source framework for deep learning in healthcare", arXiv 2211.02701',
    ),
}
