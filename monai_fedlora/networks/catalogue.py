"""Every backbone by name: what it is, what images it takes, and where its demonstration weights lie.

A plan, a bundle and an exported model name a backbone by these names. Shapes and normalisations of published
architectures are those of the released weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from monai_fedlora.catalogues import Catalogue
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.blocked import BlockedNetwork
from monai_fedlora.networks.cinema import SIZES, ConvViT, ConvViTSize, convunetr, convvit
from monai_fedlora.networks.convunetr import ConvUNetR
from monai_fedlora.networks.opened import OpenedNetwork
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.unetr import ViTUNETR
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.out_of_memory import tell_out_of_memory
from monai_fedlora.resources import weights_path

Modality = Literal["cine", "image"]
Network = ConvViT | ConvUNetR | VisionTransformer
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a name stands for.

    Networks of another shape than ``shape`` can tell are made by ``build``, of another package for example. It returns
    a :class:`~monai_fedlora.networks.backbone.Backbone`, or any module from images to logits whose ``head``, and
    ``blocks`` if it has some, are named.

    Attributes:
        name: in a plan's or a bundle's ``size``.
        source: the publication.
        shape: of a network of this package; None where ``build`` makes it.
        image_size: X, Y, Z in voxels, or H, W in pixels; that of the shape.
        spacing: of a voxel along x, y, z in mm, for cines; None for images. That of the shape.
        mean: of each colour channel, to subtract from values in [0, 1]; None for cine.
        std: of each colour channel, to divide by afterwards; None for cine.
        text: the shape of the text tower beside it; None where there is none.
        build: called with ``out_chans`` classes and ``n_frames`` frames of a cine, both by name.
        head: dotted names of the modules that are the classification head of what ``build`` returns.
        blocks: dotted name of the list of its blocks, so that what frozen ones compute can be kept; None for none.

    Raises:
        ConfigError: there is neither a shape nor a builder, or the images are not described.
    """

    name: str
    source: str
    shape: ConvViTSize | ViTSettings | None = None
    image_size: tuple[int, ...] = ()
    spacing: tuple[float, float, float] | None = None
    mean: Colour | None = None
    std: Colour | None = None
    text: TextSettings | None = None
    build: Callable[..., nn.Module] | None = None
    head: tuple[str, ...] = ()
    blocks: str | None = None

    def __post_init__(self) -> None:
        if self.shape is not None:
            object.__setattr__(self, "image_size", self.shape.image_size)
            object.__setattr__(self, "spacing", getattr(self.shape, "spacing", None))
        elif self.build is None:
            raise ConfigError(f"the backbone {self.name} has neither a shape nor a function that builds it")
        axes = 2 if self.spacing is None else 3
        if len(self.image_size) != axes or any(type(n) is not int or n < 1 for n in self.image_size):
            raise ConfigError(f"the backbone {self.name} takes {self.image_size}; give {axes} whole numbers above 0")
        if (self.spacing is None) != (self.mean is not None) or (self.mean is None) != (self.std is None):
            raise ConfigError(
                f"the backbone {self.name} needs a spacing, for cines, or mean and std, for colour images"
            )

    @property
    def modality(self) -> Modality:
        """``"cine"`` for volumes (B, frames, X, Y, Z), ``"image"`` for colour images (B, 3, H, W)."""
        return "image" if self.spacing is None else "cine"


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
_DEMO_FILES: dict[str, tuple[str, ...]] = {
    "small": ("hearts_small.safetensors", "demo_backbone.safetensors"),
    "vit_demo": ("demo_vit.safetensors",),
    "clip_demo": ("demo_clip/demo_clip.safetensors",),
}
"""By size, the one that is used today first; plans of earlier versions pin the others."""


class _BuiltIn(Mapping[str, Architecture]):
    """Those of this package: ConvViT for cines, vision transformers for colour images."""

    def __getitem__(self, name: str) -> Architecture:
        return Architecture(name=name, shape=SIZES[name], source=_CINEMA) if name in SIZES else _IMAGE[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*SIZES, *_IMAGE))

    def __len__(self) -> int:
        return len(SIZES) + len(_IMAGE)


BUILT_IN: Mapping[str, Architecture] = _BuiltIn()
"""The architectures of this package, those for cines first."""


def _problem(found: Any, name: str) -> str | None:
    if not isinstance(found, Architecture):
        return f"{found!r:.80}, which is no monai_fedlora.networks.catalogue.Architecture"
    return f"an architecture that calls itself {found.name!r}" if found.name != name else None


BACKBONES: Catalogue[Architecture] = Catalogue("backbones", word="network size", built_in=BUILT_IN, problem=_problem)
"""All architectures by name."""


def architecture(name: str) -> Architecture:
    """Look a name up.

    Raises:
        ConfigError: there is no such architecture, or a plug-in cannot be used.
        PolicyError: it is a plug-in's, which this process does not trust.
    """
    return BACKBONES[name]


def build_backbone(name: str, *, out_chans: int, n_frames: int = 2, masks: bool = False) -> Network:
    """Build a randomly initialised backbone, for images as a whole or for their voxels.

    Args:
        name: in :data:`BACKBONES`.
        out_chans: classes; with ``masks`` channels per frame, the background and each structure.
        n_frames: frames on the channel axis of a cine; colour images have three channels whatever it says.
        masks: False gives one vector per image, logits (B, out_chans), whose head is linear. True gives logits per
            voxel, (B, n_frames, out_chans, X, Y, Z) or (B, 1, out_chans, H, W), through a decoder, which is then
            the head.

    Raises:
        ConfigError: there is no such architecture, none with a decoder, or what builds it fails.
    """
    chosen = architecture(name)
    if masks:
        return _with_decoder(chosen, out_chans=out_chans, n_frames=n_frames)
    if chosen.build is not None:
        return _own(chosen, chosen.build, out_chans=out_chans, n_frames=n_frames)
    if isinstance(chosen.shape, ViTSettings):
        return VisionTransformer(chosen.shape, out_chans=out_chans)
    return convvit(name, out_chans=out_chans, n_frames=n_frames)


def _with_decoder(chosen: Architecture, *, out_chans: int, n_frames: int) -> Network:
    if isinstance(chosen.shape, ConvViTSize):
        return convunetr(chosen.name, out_chans=out_chans, n_frames=n_frames)
    if isinstance(chosen.shape, ViTSettings):
        return ViTUNETR(chosen.shape, out_chans=out_chans)
    known = ", ".join(BUILT_IN)
    raise ConfigError(f"a {chosen.name} network{_of(chosen)} has no decoder for masks; choose one of {known}")


def _own(chosen: Architecture, build: Callable[..., nn.Module], *, out_chans: int, n_frames: int) -> Any:
    """What an architecture's own function builds, with what methods and engines ask of a network around it."""
    try:
        module = build(out_chans=out_chans, n_frames=n_frames)
    except Exception as error:  # code of others can fail in any way
        tell_out_of_memory(error, f"building the backbone {chosen.name}")
        raise ConfigError(
            f"the backbone {chosen.name}{_of(chosen)} cannot be built for {out_chans} classes "
            f"({type(error).__name__}: {error})"
        ) from error
    if is_backbone(module):
        return module
    if not isinstance(module, nn.Module):
        raise ConfigError(f"the backbone {chosen.name}{_of(chosen)} is built as a {type(module).__name__}, no module")
    if chosen.blocks is None:
        return OpenedNetwork(module, head=chosen.head)
    return BlockedNetwork(module, head=chosen.head, blocks=chosen.blocks)


def _of(chosen: Architecture) -> str:
    plugin = BACKBONES.plugin(chosen.name)
    return f" of {plugin}" if plugin else ""


def demo_sizes() -> list[str]:
    """Names of the architectures with packaged weights."""
    return list(_DEMO_FILES)


def demo_weights(name: str) -> Path | None:
    """The packaged weights of an architecture, pre-trained on synthetic images only; None where there are none.

    Raises:
        ConfigError: there is no such architecture.
        WeightsError: the file is not part of this installation.
    """
    found = _packaged(name)
    return weights_path(found[0]) if found else None


def pinned_demo_weights(name: str, pin: str) -> Path | None:
    """Those packaged weights of an architecture, today's or of an earlier version, that a plan pins; None if none are.

    Args:
        name: of the architecture.
        pin: see :func:`monai_fedlora.networks.weights.backbone_sha256`.

    Raises:
        ConfigError: there is no such architecture.
        WeightsError: a file is not part of this installation.
    """
    from monai_fedlora.networks.checkpoint_files import find_weights  # which prediction does not need

    paths = (weights_path(file) for file in _packaged(name))
    return next((path for path in paths if find_weights(path).sha256() == pin), None)


def _packaged(name: str) -> tuple[str, ...]:
    if name not in BACKBONES:
        architecture(name)
    return _DEMO_FILES.get(name, ())
