"""Masks with known sizes, and plain second implementations of measures."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Voxels whose centre lies in a ball of ``radius`` mm."""
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    square = sum(((axis - middle) * step) ** 2 for axis, middle, step in zip(axes, centre, spacing, strict=True))
    return np.asarray(square) <= radius**2


def plain_dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def plain_hausdorff_95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """The larger 95th percentile of the distances between all border voxels, by a search tree."""
    first, second = (np.argwhere(mask & ~binary_erosion(mask)) * np.asarray(spacing) for mask in (a, b))
    there = cKDTree(second).query(first)[0]
    back = cKDTree(first).query(second)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def short_axis(
    *,
    slices: int = 9,
    size: int = 64,
    spacing: tuple[float, float, float] = (1.5, 1.5, 8.0),
    cavity: float = 24.0,
    wall: float = 9.0,
    above: int = 1,
) -> np.ndarray:
    """(X, Y, Z) of 1 LV, 2 MYO and 3 RV: half a ball with a wall, its septum at the low end of x, base first.

    ``above`` slices lie above the valves, and the last slice lies below the apex if there are enough.
    """
    x, y = np.meshgrid(*2 * [(np.arange(size) - (size - 1) / 2) * spacing[0]], indexing="ij")
    away = np.hypot(x, y)
    mask = np.zeros((size, size, slices), np.uint8)
    for place in range(above, slices):
        depth = (place - above + 0.5) * spacing[2]
        inner = np.sqrt(max(cavity**2 - (depth * 0.45) ** 2, 0.0)) if depth * 0.45 < cavity else 0.0
        outer = np.sqrt(max((cavity + wall) ** 2 - (depth * 0.45) ** 2, 0.0)) if inner else 0.0
        lv = away < inner
        myo = (away < outer) & ~lv
        rv = (np.hypot(x + outer, y) < 0.8 * inner) & ~lv & ~myo
        mask[..., place] = lv * 1 + myo * 2 + rv * 3
    return mask
