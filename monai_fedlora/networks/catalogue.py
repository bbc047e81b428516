"""Every backbone by name: what it is, what images it takes, and where its demonstration weights lie.

A plan, a bundle and an exported model name a backbone by these names; ``NAME-PIXELS`` is a vision transformer for
square images of another size than it is released for, such as ``dinov2_base_14-518``. Shapes and normalisations of
published architectures are those of the released weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from monai_fedlora.catalogues import Catalogue
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.architecture import Architecture
from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.blocked import BlockedNetwork
from monai_fedlora.networks.cinema import SIZES, ConvViT, ConvViTSize, convunetr, convvit
from monai_fedlora.networks.convunetr import ConvUNetR
from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.opened import OpenedNetwork
from monai_fedlora.networks.unetr import ViTUNETR
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.out_of_memory import tell_out_of_memory
from monai_fedlora.resources import weights_path

Network = ConvViT | ConvUNetR | VisionTransformer

_CINEMA = 'Fu et al., "CineMA: A foundation model for cine cardiac magnetic resonance", arXiv 2506.00679'
_DEMO_FILES: dict[str, tuple[str, ...]] = {
    "small": ("hearts_small.safetensors", "demo_backbone.safetensors"),
    "tall": ("hearts_tall.safetensors",),
    "fine": ("hearts_fine.safetensors",),
    "vit_demo": ("demo_vit.safetensors",),
    "clip_demo": ("demo_clip/demo_clip.safetensors",),
}
"""By size, the one that is used today first; plans of earlier versions pin the others."""


_OTHER_SIZE = re.compile(r"(.+)-([1-9]\d{0,4})")
"""A vision transformer and the height and width of its images in pixels, in place of what it is released for."""


class _BuiltIn(Mapping[str, Architecture]):
    """Those of this package: ConvViT for cines, vision transformers for colour images.

    Each of the latter is there for square images of every size as well, ``NAME-PIXELS``, which iterating leaves out.
    """

    def __getitem__(self, name: str) -> Architecture:
        if name in SIZES:
            return Architecture(name=name, shape=SIZES[name], source=_CINEMA)
        other = _OTHER_SIZE.fullmatch(name)
        return _of_image_size(name, IMAGE_SIZES[other[1]], int(other[2])) if other else IMAGE_SIZES[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*SIZES, *IMAGE_SIZES))

    def __len__(self) -> int:
        return len(SIZES) + len(IMAGE_SIZES)


BUILT_IN: Mapping[str, Architecture] = _BuiltIn()
"""The architectures of this package, those for cines first."""


def _of_image_size(name: str, row: Architecture, side: int) -> Architecture:
    """A vision transformer for square images of another size; its positions are interpolated when it is loaded."""
    assert isinstance(row.shape, ViTSettings)
    patch = row.shape.patch
    if side % patch:
        nearest_ones = " or ".join(f"{row.name}-{n}" for n in (side // patch * patch, (side // patch + 1) * patch) if n)
        raise ConfigError(
            f"{name} would take images of {side} pixels, no multiple of its patch of {patch}; take {nearest_ones}"
        )
    return replace(row, name=name, shape=replace(row.shape, image_size=(side, side)))


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
    from monai_fedlora.networks.weights_sources import find_weights  # which prediction does not need

    paths = (weights_path(file) for file in _packaged(name))
    return next((path for path in paths if find_weights(path).sha256() == pin), None)


def _packaged(name: str) -> tuple[str, ...]:
    if name not in BACKBONES:
        architecture(name)
    other = _OTHER_SIZE.fullmatch(name)
    return _DEMO_FILES.get(other[1] if other else name, ())
