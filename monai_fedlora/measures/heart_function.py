"""Volumes, ejection fraction and muscle mass by name, from masks of end-diastole and end-systole.

Computed by :mod:`monai_fedlora.measures.heart_numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.measures.heart_numbers import numbers_of, structure_volumes, without_impossible
from monai_fedlora.measures.masks import checked_mask, checked_spacing, value_of
from monai_fedlora.measures.structures import HEART

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

COLUMNS = tuple(f"{name}_{'percent' if unit == '%' else unit.lower()}" for name, unit in UNITS.items())
"""Columns of these numbers in every table of studies, such as ``lv_edv_ml`` and ``lv_ef_percent``."""


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

    @classmethod
    def of(cls, numbers: Tensor) -> HeartFunction:
        """From (9,) of :func:`monai_fedlora.measures.heart_numbers.numbers_of`."""
        values = [None if value != value else value for value in numbers.tolist()]
        return cls(**dict(zip(UNITS, values, strict=True)))

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


def number_cells(row: Mapping[str, float | None] | None) -> list[str]:
    """A heart's numbers as cells of :data:`COLUMNS`; empty where there is none."""
    given = row or {}
    return ["" if (value := given.get(name)) is None else f"{value:.2f}" for name in UNITS]


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
    sizes = list(checked_spacing(spacing, axes=3))
    values = torch.from_numpy(checked_mask(mask, structures, axes=4))
    return structure_volumes(values, sizes, list(range(1, len(structures) + 1))).numpy()


def heart_function(
    mask: Any,
    *,
    spacing: Sequence[float],
    structures: Sequence[str] = HEART,
    labelled: Sequence[bool] | None = None,
    possible: bool = False,
) -> HeartFunction:
    """Numbers of a heart from its masks.

    Args:
        mask: (2, X, Y, Z) end-diastole and end-systole, whole numbers.
        spacing: (x, y, z) in mm, z the slice distance.
        structures: names of the values from 1.
        labelled: for the background and each structure whether the mask outlines it; None: all.
        possible: whether to leave out what should not be given to a reader, see
            :func:`monai_fedlora.measures.heart_numbers.without_impossible`; a comparison with a reference keeps it.

    Raises:
        DataError: the mask or the voxel size cannot be used.
    """
    sizes = list(checked_spacing(spacing, axes=3))
    found = torch.from_numpy(checked_mask(mask, structures, axes=4))
    volumes = structure_volumes(found, sizes, values_in(structures, labelled))
    return HeartFunction.of(numbers_of(without_impossible(volumes) if possible else volumes))


def values_in(structures: Sequence[str], labelled: Sequence[bool] | None = None) -> list[int]:
    """Values of LV, MYO and RV in a mask; 0 for one that it does not outline. Arguments as of `heart_function`."""
    values = [value_of(name, structures) or 0 for name in HEART]
    return [value if labelled is None or bool(labelled[value]) else 0 for value in values]
