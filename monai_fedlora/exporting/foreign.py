"""Make unusual images from ordinary ones, as examples of content that a model was not trained for.

Every function takes one image, as the exported model does, and returns another; all are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate

Kind = Callable[[Tensor], Tensor]


def _levels(image: Tensor) -> Tensor:
    """The image scaled to [0, 1]."""
    low, high = image.amin(), image.amax()
    return (image - low) / (high - low).clamp(min=1e-6)


def few_slices(image: Tensor) -> Tensor:
    """The middle three slices of a stack."""
    first = max((image.shape[-1] - 3) // 2, 0)
    return image[..., first : first + 3]


def inverted(image: Tensor) -> Tensor:
    """Inverted contrast, as in a black-blood sequence."""
    return 1 - _levels(image)


def five_levels(image: Tensor) -> Tensor:
    """Only five grey levels."""
    return torch.floor(_levels(image).clamp(max=0.8) * 5) / 5


def noise(image: Tensor) -> Tensor:
    """Uniform noise in [0, 1]."""
    return torch.rand(image.shape, generator=torch.Generator().manual_seed(image.numel()))


def computed_tomography(image: Tensor) -> Tensor:
    """Like computed tomography: dark air, hardly any contrast in soft tissue."""
    levels = _levels(image)
    soft = 0.9 + 0.06 * avg_pool3d(levels[None], (3, 3, 1), stride=1, padding=(1, 1, 0))[0]
    return torch.where(levels < 0.15, torch.zeros_like(soft), soft)


def still(image: Tensor) -> Tensor:
    """The same frame twice, apart from slight noise."""
    return image[:1].expand_as(image) + 1e-3 * image.std() * noise(image)


def long_axis(image: Tensor) -> Tensor:
    """The stack resliced along the heart."""
    return interpolate(image.transpose(-1, -2)[None], size=image.shape[1:], mode="trilinear")[0]


CINE: Mapping[str, Kind] = {
    "three slices": few_slices,
    "inverted contrast": inverted,
    "noise": noise,
    "computed tomography": computed_tomography,
    "one frame twice": still,
    "long axis": long_axis,
}
"""For stacks (2, X, Y, Z) of any levels."""


def grey(image: Tensor) -> Tensor:
    """A grey photograph."""
    return image.mean(dim=0, keepdim=True).expand_as(image)


def out_of_focus(image: Tensor) -> Tensor:
    """A blurred photograph."""
    small = interpolate(image[None], size=(12, 12), mode="area")
    return interpolate(small, size=image.shape[1:], mode="bilinear")[0]


def other_colours(image: Tensor) -> Tensor:
    """Exchanged colour channels."""
    return image[[2, 0, 1]]


def tiles(image: Tensor) -> Tensor:
    """A 4 x 4 puzzle in another order: the same colours and textures, another content."""
    height, width = image.shape[1] // 4, image.shape[2] // 4
    parts = [image[:, y * height : (y + 1) * height, x * width : (x + 1) * width] for y in range(4) for x in range(4)]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(16)).tolist()
    rows = [torch.cat([parts[order[4 * y + x]] for x in range(4)], dim=2) for y in range(4)]
    return torch.cat(rows, dim=1)


PHOTOGRAPH: Mapping[str, Kind] = {
    "negative": inverted,
    "five levels": five_levels,
    "noise": noise,
    "no colour": grey,
    "out of focus": out_of_focus,
    "other colours": other_colours,
    "tiles": tiles,
}
"""For photographs (3, H, W) in [0, 1]."""
