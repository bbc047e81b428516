"""Check masks and the size of their voxels before they are measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from monai_fedlora.errors import DataError


def checked_mask(mask: Any, structures: Sequence[str], *, axes: int, name: str = "the mask") -> np.ndarray:
    """A mask as an array of integers.

    Args:
        mask: array or tensor of whole numbers: 0 background, 1 to K the structures.
        structures: names of the K structures.
        axes: number of axes that it must have.
        name: of the mask, for messages.

    Raises:
        DataError: it has another number of axes, no voxel, or values that are no structure.
    """
    values = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if values.ndim != axes or not values.size:
        raise DataError(f"{name} has the shape {values.shape}; a mask with {axes} axes is needed")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > len(structures) or (values.dtype.kind == "f" and (values != np.round(values)).any()):
        raise DataError(
            f"{name} holds values from {low:g} to {high:g}; whole numbers from 0 to {len(structures)} are needed: "
            f"0 is background, then {', '.join(structures)}. Is the mask in another order, or a map of probabilities?"
        )
    return values.astype(np.uint8 if len(structures) < 256 else np.int64)


def checked_spacing(spacing: Sequence[float], *, axes: int) -> tuple[float, ...]:
    """The size of a voxel along each axis, checked to be positive and finite.

    Raises:
        DataError: it is not.
    """
    sizes = tuple(float(size) for size in spacing)
    if len(sizes) != axes or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise DataError(f"the voxel size is {sizes}; {axes} positive numbers are needed, with the slice distance last")
    return sizes


def value_of(structure: str, structures: Sequence[str]) -> int | None:
    """The value of a structure in a mask; None if the mask has no such structure."""
    return structures.index(structure) + 1 if structure in structures else None
