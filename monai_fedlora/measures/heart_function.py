"""Volumes, ejection fraction and muscle mass from masks of end-diastole and end-systole.

A volume is the sum of the voxels times their size, with the slice distance (thickness and gap) as their height, as in
the summation of discs over all slices (Schulz-Menger et al., "Standardized image interpretation and post-processing in
cardiovascular magnetic resonance", J Cardiovasc Magn Reson 2020). Papillary muscles belong to whatever the mask calls
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monai_fedlora.measures.masks import checked_mask, checked_spacing, value_of
from monai_fedlora.measures.structures import HEART, LV, MYO, RV

DENSITY = 1.05
"""Density of heart muscle in g/mL."""

UNITS = {
    "lv_edv": "mL",
    "lv_esv": "mL",
    "lv_sv": "mL",
    "lv_ef": "%",
    "lv_mass": "g",
    "rv_edv": "mL",
    "rv_esv": "mL",
    "rv_sv": "mL",
    "rv_ef": "%",
}
"""Unit of each number of a :class:`HeartFunction`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartFunction:
    """Numbers of one heart. None where the masks do not outline what a number needs, or the ventricle is empty at ED.

    Attributes:
        lv_edv: volume of the left ventricle at end-diastole, mL.
        lv_esv: at end-systole, mL.
        lv_sv: stroke volume, mL.
        lv_ef: ejection fraction, %.
        lv_mass: mass of the left ventricle's muscle at end-diastole, g.
        rv_edv: volume of the right ventricle at end-diastole, mL.
        rv_esv: at end-systole, mL.
        rv_sv: stroke volume, mL.
        rv_ef: ejection fraction, %.
    """

    lv_edv: float | None
    lv_esv: float | None
    lv_sv: float | None
    lv_ef: float | None
    lv_mass: float | None
    rv_edv: float | None
    rv_esv: float | None
    rv_sv: float | None
    rv_ef: float | None

    def to_row(self) -> dict[str, float | None]:
        """The numbers by name; see :data:`UNITS`."""
        return asdict(self)

    def minus(self, other: HeartFunction) -> dict[str, float | None]:
        """Differences to the numbers of another; None where either has none."""
        mine, theirs = self.to_row(), other.to_row()
        return {
            name: None if value is None or (base := theirs[name]) is None else value - base
            for name, value in mine.items()
        }


def ejection_fraction(*, edv: float, esv: float) -> float | None:
    """Ejection fraction in % of the end-diastolic volume; None if that is 0."""
    return 100 * (edv - esv) / edv if edv else None


def volumes_ml(mask: Any, *, structures: Sequence[str] = HEART, spacing: Sequence[float]) -> np.ndarray:
    """Volume of every structure in every frame.

    Args:
        mask: (T, X, Y, Z) whole numbers, array or tensor.
        structures: names of the values from 1.
        spacing: (x, y, z) in mm, z the slice distance.

    Returns:
        (T, K) float64, mL.

    Raises:
        DataError: the mask or the voxel size cannot be used.
    """
    voxel = math.prod(checked_spacing(spacing, axes=3)) / 1000
    values = checked_mask(mask, structures, axes=4)
    counts = [np.bincount(frame.ravel(), minlength=len(structures) + 1)[1:] for frame in values]
    return np.array(counts, dtype=np.float64).reshape(len(values), len(structures)) * voxel


def heart_function(
    mask: Any,
    *,
    spacing: Sequence[float],
    structures: Sequence[str] = HEART,
    labelled: Sequence[bool] | None = None,
) -> HeartFunction:
    """Numbers of a heart from its masks.

    Args:
        mask: (2, X, Y, Z) end-diastole and end-systole, whole numbers.
        spacing: (x, y, z) in mm, z the slice distance.
        structures: names of the values from 1.
        labelled: for the background and each structure whether the mask outlines it; None: all.

    Raises:
        DataError: the mask or the voxel size cannot be used.
    """
    sizes = volumes_ml(mask, structures=structures, spacing=spacing)

    def of(structure: str) -> tuple[float | None, float | None]:
        value = value_of(structure, structures)
        if value is None or (labelled is not None and not bool(labelled[value])):
            return None, None
        return float(sizes[0, value - 1]), float(sizes[1, value - 1])

    (lv_edv, lv_esv), (muscle, _), (rv_edv, rv_esv) = (of(structure) for structure in (LV, MYO, RV))
    return HeartFunction(
        lv_edv=lv_edv,
        lv_esv=lv_esv,
        lv_sv=_stroke(lv_edv, lv_esv),
        lv_ef=_ejected(lv_edv, lv_esv),
        lv_mass=None if muscle is None else DENSITY * muscle,
        rv_edv=rv_edv,
        rv_esv=rv_esv,
        rv_sv=_stroke(rv_edv, rv_esv),
        rv_ef=_ejected(rv_edv, rv_esv),
    )


def _stroke(edv: float | None, esv: float | None) -> float | None:
    return None if edv is None or esv is None else edv - esv


def _ejected(edv: float | None, esv: float | None) -> float | None:
    return None if edv is None or esv is None else ejection_fraction(edv=edv, esv=esv)
