"""Every backbone by name: what it is, what images it takes, and where its demonstration weights lie.

A plan, a bundle and an exported model name a backbone by these names. Shapes and normalisations of published
architectures are those of the released weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.networks.cinema import SIZES, ConvViT, ConvViTSize, convvit
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.resources import DEMO_CLIP_WEIGHTS, DEMO_VIT_WEIGHTS, DEMO_WEIGHTS, weights_path

Family = Literal["convvit", "vit"]
Modality = Literal["cine", "image"]
Network = ConvViT | VisionTransformer
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a name stands for.

    Attributes:
        name: in a plan's or a bundle's ``size``.
        shape: of the network.
        mean: of each colour channel, to subtract from values in [0, 1]; None for cine.
        std: of each colour channel, to divide by afterwards; None for cine.
        text: the shape of the text tower beside it; None where there is none.
        source: the publication.
    """

    name: str
    shape: ConvViTSize | ViTSettings
    text: TextSettings | None = None
    mean: Colour | None = None
    std: Colour | None = None
    source: str

    @property
    def family(self) -> Family:
        """The network's class: ConvViT or VisionTransformer."""
        return "convvit" if isinstance(self.shape, ConvViTSize) else "vit"

    @property
    def modality(self) -> Modality:
        """``"cine"`` for volumes (B, frames, X, Y, Z), ``"image"`` for colour images (B, 3, H, W)."""
        return "cine" if isinstance(self.shape, ConvViTSize) else "image"

    @property
    def image_size(self) -> tuple[int, ...]:
        """X, Y, Z in voxels, or H, W in pixels."""
        return self.shape.image_size

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Of a voxel along x, y, z in mm; None for images."""
        return self.shape.spacing if isinstance(self.shape, ConvViTSize) else None


def _image_rows(
    shapes: dict[str, ViTSettings], *, source: str, mean: Colour = (0.5, 0.5, 0.5), std: Colour = (0.5, 0.5, 0.5)
) -> dict[str, Architecture]:
    return {
        name: Architecture(name=name, shape=shape, mean=mean, std=std, source=source) for name, shape in shapes.items()
    }


def _clip_rows(
    shapes: dict[str, tuple[ViTSettings, TextSettings]], *, source: str, mean: Colour, std: Colour
) -> dict[str, Architecture]:
    images = _image_rows({name: image for name, (image, _) in shapes.items()}, source=source, mean=mean, std=std)
    return {name: replace(row, text=shapes[name][1]) for name, row in images.items()}


_CINEMA = 'Fu et al., "CineMA: A foundation model for cine cardiac magnetic resonance", arXiv 2506.00679'
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_SMALL = ViTSettings(image_size=(224, 224), patch=16, dim=384, depth=12, n_heads=6)
_BASE = ViTSettings(image_size=(224, 224), patch=16, dim=768, depth=12, n_heads=12)
_LARGE = ViTSettings(image_size=(224, 224), patch=16, dim=1024, depth=24, n_heads=16)
_CLIP_TEXT = TextSettings(context=77, vocabulary=49408, dim=512, depth=12, n_heads=8, embed_dim=512)
_CLIP_BASE = replace(_BASE, activation="quick_gelu", norm_eps=1e-5, patch_bias=False, pre_norm=True)

_IMAGE: dict[str, Architecture] = {
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
        {"mae_base_16": replace(_BASE, readout="mean")},
        source='He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {"retfound_large_16": replace(_LARGE, readout="mean")},
        source='Zhou et al., "A foundation model for generalizable disease detection from retinal images", Nature 2023',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_image_rows(
        {
            "dinov2_small_14": replace(_SMALL, patch=14, layer_scale=True),
            "dinov2_base_14": replace(_BASE, patch=14, layer_scale=True),
            "dinov2_large_14": replace(_LARGE, patch=14, layer_scale=True),
        },
        source='Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", arXiv 2304.07193',
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    **_clip_rows(
        {
            # (ours) small enough to train on a laptop's CPU, with words for what synthetic photographs show.
            "clip_demo": (
                replace(_CLIP_BASE, image_size=(64, 64), patch=8, dim=96, depth=6, n_heads=4),
                TextSettings(context=32, vocabulary=896, dim=96, depth=3, n_heads=4, embed_dim=64),
            ),
            "clip_base_32": (replace(_CLIP_BASE, patch=32), _CLIP_TEXT),
            "clip_base_16": (_CLIP_BASE, _CLIP_TEXT),
            "clip_large_14": (
                replace(_CLIP_BASE, patch=14, dim=1024, depth=24, n_heads=16),
                replace(_CLIP_TEXT, dim=768, n_heads=12, embed_dim=768),
            ),
        },
        source='Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", '
        "arXiv 2103.00020",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
    **_image_rows(
        # MONAI's defaults; no weights of it are published, so that the normalisation is ours.
        {"monai_vit_base_16": replace(_BASE, norm_eps=1e-5, qkv_bias=False)},
        source='Cardoso et al., "MONAI: An open-source framework for deep learning in healthcare", arXiv 2211.02701',
    ),
}
_DEMO_FILES = {"small": DEMO_WEIGHTS, "vit_demo": DEMO_VIT_WEIGHTS, "clip_demo": DEMO_CLIP_WEIGHTS}


def architecture_names(modality: Modality | None = None) -> list[str]:
    """The names of all architectures, or of those for one modality."""
    names: dict[Modality, list[str]] = {"cine": list(SIZES), "image": list(_IMAGE)}
    return names[modality] if modality else [*names["cine"], *names["image"]]


def architecture(name: str) -> Architecture:
    """Look a name up.

    Raises:
        ConfigError: there is no such architecture.
    """
    if name in SIZES:
        return Architecture(name=name, shape=SIZES[name], source=_CINEMA)
    if name not in _IMAGE:
        raise ConfigError(f"there is no network size {name!r}{nearest(name, architecture_names())}")
    return _IMAGE[name]


def build_backbone(name: str, *, out_chans: int, n_frames: int = 2) -> Network:
    """Build a randomly initialised backbone.

    Args:
        name: see :func:`architecture_names`.
        out_chans: classes.
        n_frames: frames on the channel axis of a cine; colour images have three channels whatever it says.

    Raises:
        ConfigError: there is no such architecture.
    """
    shape = architecture(name).shape
    if isinstance(shape, ConvViTSize):
        return convvit(name, out_chans=out_chans, n_frames=n_frames)
    return VisionTransformer(shape, out_chans=out_chans)


def demo_weights(name: str) -> Path | None:
    """The packaged weights of an architecture, pre-trained on synthetic images only; None where there are none.

    Raises:
        ConfigError: there is no such architecture.
        WeightsError: the file is not part of this installation.
    """
    architecture(name)
    return weights_path(_DEMO_FILES[name]) if name in _DEMO_FILES else None
