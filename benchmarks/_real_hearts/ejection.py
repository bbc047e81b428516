"""Where the error of an ejection fraction comes from: the same volumes with a part of the truth in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from _real_hearts.grids import Truth
from monai_fedlora.measures.heart_function import ejection_fraction

Areas = np.ndarray
"""(2, Z) pixels of the left ventricle in every slice at ED and ES."""


def _areas(mask: np.ndarray) -> Areas:
    return (mask == 1).sum(axis=(1, 2))


def _true_presence(found: Areas, true: Areas) -> Areas:
    return np.where((found == 0) | (true == 0), true, found)


def _true_area(found: Areas, true: Areas) -> Areas:
    return np.where((found > 0) & (true > 0), true, found)


REPLACED: dict[str, Callable[[Areas, Areas], Areas]] = {
    "nothing": lambda found, true: found,
    "end_systole": lambda found, true: np.stack([found[0], true[1]]),
    "end_diastole": lambda found, true: np.stack([true[0], found[1]]),
    "whether_a_slice_has_a_ventricle": _true_presence,
    "area_of_slices_that_both_outline": _true_area,
}
"""What is taken from the true masks; found and true areas to those that are summed."""


def parts(found: Sequence[np.ndarray], truths: Sequence[Truth]) -> dict[str, dict[str, Any]]:
    """Errors of the left ejection fraction in points, by what is taken from the true masks.

    Args:
        found: masks (2, X, Y, Z) on the grids of the files.
        truths: the patients'; one without an ejection fraction in either is left out.

    Returns:
        For each of :data:`REPLACED` the mean absolute error, the bias and the number of patients.
    """
    errors: dict[str, list[float]] = {name: [] for name in REPLACED}
    for mask, truth in zip(found, truths, strict=True):
        ours, theirs = _areas(mask), _areas(truth.mask)
        for name, replaced in REPLACED.items():
            pair = [_fraction(areas) for areas in (replaced(ours, theirs), theirs)]
            if pair[0] is not None and pair[1] is not None:
                errors[name].append(pair[0] - pair[1])
    return {
        name: {
            "mean_absolute": round(float(np.mean(np.abs(some))), 3),
            "bias": round(float(np.mean(some)), 3),
            "n": len(some),
        }
        for name, some in errors.items()
        if some
    }


def _fraction(areas: Areas) -> float | None:
    edv, esv = areas.sum(axis=1).tolist()
    return ejection_fraction(edv=edv, esv=esv)
