"""Positions of a token grid: fixed sine-cosine tables as CineMA lays them out, and the resizing of any table.

Source: Fu et al., arXiv 2506.00679; the construction follows Vaswani et al., arXiv 1706.03762, section 3.5,
one axis after another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch.nn import functional

_MAX_PERIOD = 10000.0
_OFFSET = 0.1  # of DINO and DINOv2

Resizing = Literal["plain", "smoothed", "offset", "corners"]
"""How a family's code interpolates learned positions bicubically.

``"plain"``: the areas of both grids are laid upon each other (``align_corners=False``), as transformers, MAE, RETFound
and DeiT do. ``"smoothed"``: besides, the filter is as wide as the coarser grid's tokens (``antialias=True``), as timm,
OpenCLIP and DINOv2 with registers do. ``"offset"``: as plain, on a new grid whose sides are taken to be 0.1 longer, as
DINO and DINOv2 do. ``"corners"``: tokens in the corners keep their positions (``align_corners=True``), as torchvision
does.
"""

_TABLE_TOLERANCE = 1e-2  # above the rounding of bfloat16, below any difference between two grids


def sincos_position(dim: int, grid: Sequence[int]) -> torch.Tensor:
    """Return the (N, dim) table of a grid of N = prod(grid) tokens.

    ``dim`` is split into one equal, even part per axis, each ``[sin | cos]`` of the coordinate at the
    frequencies 10000^(-i/half); what is left over stays zero. Coordinates come from a meshgrid with
    Cartesian ("xy") indexing, flattened, while tokens are in x, y, z order: the first two axes of the
    table are swapped. The released weights were trained with this, so it is kept.
    """
    half = dim // len(grid) // 2
    frequencies = _MAX_PERIOD ** (-torch.arange(half, dtype=torch.float64) / half)
    axes = [torch.arange(size, dtype=torch.float64) for size in grid]
    table = torch.zeros(math.prod(grid), dim)
    for axis, coordinates in enumerate(torch.meshgrid(*axes, indexing="xy")):
        angles = coordinates.reshape(-1, 1) * frequencies
        first = axis * 2 * half
        table[:, first : first + half] = angles.sin()
        table[:, first + half : first + 2 * half] = angles.cos()
    return table


def resize_position(position: torch.Tensor, grid: Sequence[int], new_grid: Sequence[int]) -> torch.Tensor:
    """Interpolate a (1, N, D) table of a 3D ``grid`` trilinearly to ``new_grid``, giving (1, N', D)."""
    dim = position.shape[-1]
    volume = position.float().reshape(1, *grid, dim).permute(0, 4, 1, 2, 3)
    volume = functional.interpolate(volume, size=list(new_grid), mode="trilinear", align_corners=False)
    return volume.permute(0, 2, 3, 4, 1).reshape(1, -1, dim).to(position.dtype)


def resize_image_position(
    position: torch.Tensor, grid: Sequence[int], new_grid: Sequence[int], *, resizing: Resizing
) -> torch.Tensor:
    """Interpolate a (1, N, D) table of a 2D ``grid`` (rows, columns) to ``new_grid`` in float32, giving (1, N', D)."""
    dim = position.shape[-1]
    plane = position.float().reshape(1, *grid, dim).permute(0, 3, 1, 2)
    sampling: dict[str, Any] = {"size": list(new_grid), "align_corners": resizing == "corners"}
    if resizing == "offset":
        sampling = {"scale_factor": [(new + _OFFSET) / old for new, old in zip(new_grid, grid, strict=True)]}
    plane = functional.interpolate(plane, mode="bicubic", antialias=resizing == "smoothed", **sampling)
    return plane.permute(0, 2, 3, 1).reshape(1, -1, dim).to(position.dtype)


def find_grid(position: torch.Tensor) -> tuple[int, int, int] | None:
    """Return the 3D grid whose sine-cosine table a (1, N, D) ``position`` is, or None if there is none.

    A file stores N alone; the table tells x, y and z apart. Tables in half precision are recognised too.
    """
    table = position[0].float()
    count, dim = table.shape
    half = dim // 3 // 2
    if half == 0:
        return None
    # The columns of frequency 1 reject every wrong grid cheaply; the full table confirms the right one.
    fastest = table[:, [column * half for column in range(6)]]
    for grid in _factorisations(count):
        if _close(sincos_position(6, grid), fastest) and _close(sincos_position(dim, grid), table):
            return grid
    return None


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() < _TABLE_TOLERANCE)


def _factorisations(count: int) -> Iterator[tuple[int, int, int]]:
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    for x in divisors:
        for y in divisors:
            if count % (x * y) == 0:
                yield x, y, count // (x * y)
