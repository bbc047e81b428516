"""Checks of a cine's voxels: no label maps, no NaN or infinity, no time on the third axis.

The limits are ours. In 234 frames of 117 patients (ACDC and Sunnybrook) there are at least 116 levels, and at most 48 %
of neighbouring voxels are equal; in their segmentations there are at most 4 levels, and at least 94 % are equal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_fedlora.errors import DataError

FEWEST_LEVELS = 12
"""A volume with at most so many different levels, unless all are equal, is a label map."""
_EQUAL_NEIGHBOURS = 0.85
_CELL = 4
_TIME_IS_SMOOTHER = 0.6


def check_grey_levels(voxels: np.ndarray, path: Path) -> None:
    """Refuse a label map.

    Args:
        voxels: (X, Y, Z) finite, not all equal.
        path: the file, for messages.

    Raises:
        DataError: there are very few levels, or whole numbers that are mostly equal in neighbouring voxels.
    """
    levels = np.unique(voxels)
    if 2 <= len(levels) <= FEWEST_LEVELS:
        raise DataError(
            f"{path} has only {len(levels)} different levels: it is a segmentation (label map) and no image; give the "
            "image itself"
        )
    if len(levels) > 256 or (levels != np.round(levels)).any():
        return
    first, second = voxels[:-1], voxels[1:]
    inside = (first != levels[0]) & (second != levels[0])
    if inside.any() and float((first == second)[inside].mean()) > _EQUAL_NEIGHBOURS:
        raise DataError(
            f"{path} consists of areas of equal whole numbers: it is a segmentation (label map) and no image; give the "
            "image itself"
        )


def check_time_axis(voxels: np.ndarray, path: Path) -> None:
    """Refuse a cine whose third axis is time.

    Successive frames differ less than neighbouring slices do: in a real cine and in phantoms the differences of slices
    are 2 to 18 times those of frames.

    Args:
        voxels: (X, Y, Z, T) real numbers.
        path: the file, for messages.

    Raises:
        DataError: neighbours on the third axis are more alike than neighbours on the fourth.
    """
    width, height, slices, frames = voxels.shape
    if min(slices, frames) < 3 or min(width, height) < _CELL:
        return
    along_third, along_fourth = (_typical_change(voxels, axis) for axis in (2, 3))
    if along_third < _TIME_IS_SMOOTHER * along_fourth:
        raise DataError(
            f"{path} has {slices} images on its third axis that differ as frames do, and {frames} on its fourth that "
            "differ as slices do: it is stored as (x, y, t, z); reorder its axes to (x, y, z, t)"
        )


def not_finite(voxels: np.ndarray, path: Path) -> str:
    """Return the message that a file holds NaN or infinity, with their share."""
    share = 1 - float(np.isfinite(voxels).mean())
    return (
        f"{path} has voxels that are not finite numbers ({share:.1%} of them; are they padding?); export it again from "
        "the scanner's images, or set them to 0"
    )


def _typical_change(voxels: np.ndarray, axis: int) -> float:
    """Third quartile of the differences of neighbouring images, after averaging 4 x 4 pixels, in the brighter half."""
    width, height, *rest = voxels.shape
    cells = voxels[: width // _CELL * _CELL, : height // _CELL * _CELL]
    cells = cells.reshape(width // _CELL, _CELL, height // _CELL, _CELL, *rest).mean((1, 3), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        cells = np.nan_to_num(cells, posinf=0.0, neginf=0.0)
        bright = cells.mean((2, 3), dtype=np.float64)
        return float(np.quantile(np.abs(np.diff(cells[bright >= np.median(bright)], axis=axis - 1)), 0.75))
