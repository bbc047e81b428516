"""Preprocessing of photographs (dermoscopy, fundus) as MONAI dictionary transforms.

Two steps lead from the file to the network: `photograph_file.read_photograph`, which exported bundles repeat with
Pillow alone, and `PhotographPreprocessor`, which they contain as TorchScript. So preprocessing is the same in training
and in the bundle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import EnsureTyped, SelectItemsd, Transform
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.formats.photograph_file import read_photograph
from monai_fedlora.transforms.mask_reading import LABELLED, MASK, outlined
from monai_fedlora.transforms.photograph_colour import shades_of_grey
from monai_fedlora.transforms.photograph_geometry import centre_box, centre_square, disc_square, field_of_view, resize
from monai_fedlora.transforms.photograph_mask import shrink_labels
from monai_fedlora.transforms.photograph_mask_reading import read_photograph_mask
from monai_fedlora.transforms.photograph_style import STYLES

IMAGE = "image"
KEPT_KEYS = (IMAGE, MASK, LABELLED, "label", "values", "subject")


class PhotographPreprocessor(nn.Module):
    """Preprocess a photograph of any size to the network's input; scriptable, also together with a network.

    ``dermoscopy``: shades-of-grey colour constancy, centre square. ``fundus``: the square around the lit disc.
    ``plain``: centre square. Then antialiased bilinear scaling and the backbone's own normalisation.

    Args:
        style: "dermoscopy", "fundus" or "plain".
        image_size: pixels (H, W) of the network's input; both equal.
        mean: of each channel, subtracted from levels in [0, 1].
        std: of each channel, divided by afterwards.

    Raises:
        ConfigError: a setting is not valid.
    """

    def __init__(self, *, style: str, image_size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.style = style
        self.size = _checked_size(image_size)
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, channel_levels(name, values), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, size, size), normalised."""
        if self.style == "fundus":
            squares = torch.cat([resize(disc_square(one)[None], self.size) for one in image])
        elif self.style == "dermoscopy":
            squares = resize(centre_square(shades_of_grey(image)), self.size)
        else:
            squares = resize(centre_square(image), self.size)
        return (squares - self.mean) / self.std

    def box(self, image: Tensor) -> tuple[int, int, int, int]:
        """The part of a photograph (3, H, W) in [0, 1] that :meth:`forward` takes, as `field_of_view` gives it."""
        if self.style == "fundus":
            return field_of_view(image)
        return centre_box(image.shape[1], image.shape[2])


class StyledPreprocessor(PhotographPreprocessor):
    """Preprocess photographs in a style that another package has added.

    Args:
        square: see :class:`monai_fedlora.transforms.photograph_style.Style`.
        style, image_size, mean, std: see :class:`PhotographPreprocessor`.
    """

    def __init__(self, *, square: nn.Module, **settings: Any) -> None:
        super().__init__(**settings)
        self.square = square

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, size, size), normalised."""
        squares = torch.cat([resize(self.square(one[None]), self.size) for one in image])
        return (squares - self.mean) / self.std

    def box(self, image: Tensor) -> tuple[int, int, int, int]:
        """Refuse, because nobody but the other package knows what it cuts out.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"the photograph style {self.style!r} of another package does not say what it cuts out, so that masks "
            "cannot follow; choose a style of this package for segmentation"
        )


def photograph_preprocessor(
    *, style: str, image_size: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> PhotographPreprocessor:
    """Make the preprocessor of a style.

    Args:
        style: in :data:`monai_fedlora.transforms.photograph_style.STYLES`.
        image_size, mean, std: see :class:`PhotographPreprocessor`.

    Raises:
        ConfigError: there is no such style, or another setting is not valid.
    """
    chosen = STYLES[style]
    settings: dict[str, Any] = {"style": style, "image_size": image_size, "mean": mean, "std": std}
    if chosen.square is None:
        return PhotographPreprocessor(**settings)
    return StyledPreprocessor(square=chosen.square().eval(), **settings)


class LoadPhotographd(Transform):
    """Read the file named by ``image``: a plain float32 tensor (3, H, W) in [0, 1] takes its place.

    All other keys stay. For grey, transparent, rotated and 16-bit files see `photograph_file.read_photograph`. Where
    the item has ``mask_values``, the file named by ``mask`` is read too: a uint8 tensor (1, H, W) takes its place, 0
    for the background and 1 to K for the structures, and ``labelled`` says which of them it outlines.

    Raises:
        DataError: a file cannot be used; the message names it.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        loaded = {**data, IMAGE: torch.from_numpy(read_photograph(data[IMAGE]))}
        if "mask_values" not in data:
            return loaded
        mask = read_photograph_mask(data[MASK], image=data[IMAGE], values=data["mask_values"])
        return {**loaded, MASK: torch.from_numpy(mask)[None], LABELLED: outlined(data["mask_values"])}


class PreparePhotographd(Transform):
    """:func:`photograph_preprocessor` on ``image``: (3, H, W) in [0, 1] -> (3, size, size), normalised.

    A ``mask`` (1, H, W) is cut and scaled in the same way, see `photograph_mask.shrink_labels`.

    Raises:
        ConfigError: there is a mask, and the style is that of another package, which cuts as it likes.
    """

    def __init__(self, *, style: str, image_size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        self.preprocessor = photograph_preprocessor(style=style, image_size=image_size, mean=mean, std=std)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data[IMAGE]
        with torch.no_grad():
            prepared = {**data, IMAGE: self.preprocessor(image[None])[0]}
            if MASK in data:
                box = self.preprocessor.box(image)
                prepared[MASK] = shrink_labels(data[MASK], box, self.preprocessor.size, len(data[LABELLED]) - 1)
        return prepared


def photograph_preprocessing(
    *, style: str, image_size: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> list[Callable]:
    """Deterministic transforms from a datalist item to the network's input.

    The item afterwards holds ``image`` (plain float32 tensor (3, \\*image_size)) and, where present, ``label``,
    ``values`` and ``subject``. With masks it also holds ``mask`` (uint8 tensor (1, \\*image_size) of 0 to K) and
    ``labelled`` (see `mask_reading.LABELLED`). All other keys are dropped, so that items of any source can be collated.

    Args:
        style: "dermoscopy", "fundus", "plain" or one of another package, see :func:`photograph_preprocessor`.
        image_size: pixels (H, W) of the network's input; both equal.
        mean: the backbone's, of each channel.
        std: the backbone's, of each channel.

    Raises:
        ConfigError: there is no such style, or another setting is not valid.
    """
    return [
        LoadPhotographd(),
        PreparePhotographd(style=style, image_size=image_size, mean=mean, std=std),
        EnsureTyped(keys=IMAGE, dtype=torch.float32, track_meta=False),
        SelectItemsd(keys=KEPT_KEYS, allow_missing_keys=True),
    ]


def channel_levels(name: str, values: Sequence[float]) -> Tensor:
    """A mean or standard deviation of red, green and blue as a (3, 1, 1) float32 tensor.

    Raises:
        ConfigError: these are not three finite numbers, or a standard deviation is not positive.
    """
    levels = [float(value) for value in values]
    if len(levels) != 3 or not all(math.isfinite(level) for level in levels):
        raise ConfigError(f"{name} {tuple(values)} must be three finite numbers, of red, green and blue")
    if name == "std" and min(levels) <= 0:
        raise ConfigError(f"std {tuple(values)} must be positive")
    return torch.tensor(levels)[:, None, None]


def _checked_size(image_size: Sequence[int]) -> int:
    if len(image_size) != 2 or image_size[0] != image_size[1] or image_size[0] < 1:
        raise ConfigError(
            f"image_size {tuple(image_size)} must be two equal positive numbers of pixels (height, width)"
        )
    return int(image_size[0])
