"""Thickness of the left ventricle's wall at end-diastole, by slice and by segment.

In a slice the inner border is the outline of the blood pool and the outer border that of blood pool and muscle
together. From points at equal distances along the inner border the distance to the nearest point of the outer one is
taken, where muscle lies outside. A slice is measured if muscle surrounds at least three quarters of the blood pool
(ours), which leaves out slices in the outflow tract, and the apex, where there is no blood pool.

Segments follow the model of the American Heart Association (Cerqueira et al., Circulation 2002): the measured slices
are divided into basal, mid-cavity and apical thirds; the first two have six segments of 60 degrees, the last one has
four of 90. The middle of the septum lies in the direction from the left to the right ventricle. Single points of a mask
are uneven by about half a pixel, therefore thicknesses are given as means over slices and segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.errors import DataError
from monai_fedlora.measures.contours import outlines
from monai_fedlora.measures.masks import checked_mask, checked_spacing, value_of
from monai_fedlora.measures.structures import HEART, LV, MYO, RV

SURROUNDED = 0.75
"""Smallest share of the blood pool's outline that muscle surrounds in a slice that is measured (ours)."""
_STEP_MM = 0.5
_THIRDS = ("basal", "mid", "apical")
# turning from the septum (six segments) or from 45 degrees before its middle (four) towards the inferior wall
_SIX = ("inferoseptal", "inferior", "inferolateral", "anterolateral", "anterior", "anteroseptal")
_FOUR = ("septal", "inferior", "lateral", "anterior")
_RING = ("anterior", "anteroseptal", "inferoseptal", "inferior", "inferolateral", "anterolateral")
SEGMENTS = (
    *(f"basal {wall}" for wall in _RING),
    *(f"mid {wall}" for wall in _RING),
    *(f"apical {wall}" for wall in ("anterior", "septal", "inferior", "lateral")),
)
"""Names of the segments 1 to 16; segment 17, the apex, cannot be measured in short-axis slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WallThickness:
    """Thickness of the wall in mm.

    Attributes:
        slices: mean of each slice, in the order of the stack; None where it was not measured.
        mean: over all points of all measured slices; None if there is none.
        thickest: mean of the thickest segment; None without segments.
        segments: mean of each segment that was measured, by its name; empty if the mask has no right ventricle, the
            stack's orientation is not known, or fewer than three slices were measured.
    """

    slices: tuple[float | None, ...]
    mean: float | None
    thickest: float | None
    segments: dict[str, float]

    def to_row(self) -> dict[str, float | None]:
        """Mean, thickest segment and all segments, for a table."""
        return {"wall_mean": self.mean, "wall_thickest": self.thickest} | {
            f"wall_{name.replace(' ', '_')}": self.segments.get(name) for name in SEGMENTS
        }


def wall_thickness(
    mask: Any, *, spacing: Sequence[float], structures: Sequence[str] = HEART, oriented: bool = True
) -> WallThickness:
    """Measure the wall in one frame.

    Args:
        mask: (X, Y, Z) whole numbers, slices from base to apex, seen from the apex with the anterior wall at the low
            end of y and the septum at the low end of x (the canonical order of
            `monai_fedlora.transforms.orientation`).
        spacing: (x, y, z) in mm.
        structures: names of the values from 1.
        oriented: whether the order is canonical; otherwise no segments are given.

    Raises:
        DataError: the mask or the voxel size cannot be used, or LV or MYO is not among the structures.
    """
    sizes = np.array(checked_spacing(spacing, axes=3)[:2])
    values = checked_mask(mask, structures, axes=3)
    lv, muscle, rv = (value_of(structure, structures) for structure in (LV, MYO, RV))
    if lv is None or muscle is None:
        raise DataError(f"the wall lies between {LV} and {MYO}, and the mask has {', '.join(structures)} alone")
    measured = {
        place: found
        for place in range(values.shape[2])
        if (found := _slice(values[..., place] == lv, values[..., place] == muscle, sizes)) is not None
    }
    slices = tuple(float(measured[place][1].mean()) if place in measured else None for place in range(values.shape[2]))
    if not measured:
        return WallThickness(slices=slices, mean=None, thickest=None, segments={})
    segments = _segments(values, measured, sizes, lv=lv, rv=rv) if oriented and rv and len(measured) >= 3 else {}
    return WallThickness(
        slices=slices,
        mean=float(np.concatenate([depth for _, depth in measured.values()]).mean()),
        thickest=max(segments.values(), default=None),
        segments=segments,
    )


def _slice(pool: np.ndarray, muscle: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Points (N, 2) along the inner border in mm, and the thickness (N,) at each; None if it is not measured."""
    from scipy.spatial import cKDTree

    inner, outer = outlines(pool), outlines(pool | muscle)
    if not inner or not outer:
        return None
    points = _dense(inner[0] * sizes)
    depth, _ = cKDTree(_dense(outer[0] * sizes)).query(points)
    covered = depth > 0.5 * sizes.max()
    return (points[covered], depth[covered]) if covered.mean() >= SURROUNDED else None


def _dense(line: np.ndarray) -> np.ndarray:
    """Points of a closed line in mm, at equal distances."""
    ring = np.vstack([line, line[:1]])
    along = np.concatenate([[0.0], np.linalg.norm(np.diff(ring, axis=0), axis=1).cumsum()])
    places = np.linspace(0, along[-1], max(int(along[-1] / _STEP_MM), 8), endpoint=False)
    return np.stack([np.interp(places, along, ring[:, axis]) for axis in (0, 1)], axis=1)


def _segments(
    values: np.ndarray,
    measured: dict[int, tuple[np.ndarray, np.ndarray]],
    sizes: np.ndarray,
    *,
    lv: int,
    rv: int,
) -> dict[str, float]:
    """Mean thickness by segment. The septum's direction is that of the nearest slice with a right ventricle."""
    septum = {
        place: _centre(values[..., place] == rv, sizes) - _centre(values[..., place] == lv, sizes)
        for place in measured
        if (values[..., place] == rv).any()
    }
    if not septum:
        return {}
    depths: dict[str, list[np.ndarray]] = {}
    for number, (place, (points, depth)) in enumerate(sorted(measured.items())):
        third = _THIRDS[number * 3 // len(measured)]
        towards = septum[min(septum, key=lambda other: abs(other - place))]
        away = points - _centre(values[..., place] == lv, sizes)
        turn = np.arctan2(away[:, 1], away[:, 0]) - np.arctan2(towards[1], towards[0])
        walls = _FOUR if third == "apical" else _SIX
        width = 2 * np.pi / len(walls)
        # y points down, so that from the septum on the left to the inferior wall below the angle decreases
        start = -turn + (width / 2 if third == "apical" else 0.0)
        index = (start % (2 * np.pi) // width).astype(int) % len(walls)
        for wall, name in enumerate(walls):
            if (index == wall).any():
                depths.setdefault(f"{third} {name}", []).append(depth[index == wall])
    return {name: float(np.concatenate(depths[name]).mean()) for name in SEGMENTS if name in depths}


def _centre(plane: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Centre of a region in mm."""
    centre: np.ndarray = np.argwhere(plane).mean(axis=0) * sizes
    return centre
