"""What a backbone's name stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.bert import BertSettings
from monai_fedlora.networks.cinema import ConvViTSize
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.vit import ViTSettings

Modality = Literal["cine", "image"]
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
    text: TextSettings | BertSettings | None = None
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
