"""What measuring could tell at best: a linear probe of numbers taken from the true masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_fedlora.measures.heart_function import heart_function
from monai_fedlora.measures.wall_thickness import wall_thickness

SETS = ("volumes", "volumes_and_wall")
"""Volumes, ejection fractions and mass; the same with the wall's thickness at ED and ES."""


def numbers(mask: np.ndarray, spacing: Sequence[float]) -> dict[str, list[float]]:
    """Numbers of a heart from its masks (2, X, Y, Z), by the name of the set.

    Volumes and mass are given as they are and as logarithms, so that a linear probe also reads their ratios.
    """
    function = heart_function(mask, spacing=spacing)
    sizes = [function.lv_edv, function.lv_esv, function.rv_edv, function.rv_esv, function.lv_mass]
    filled = [value or 0.0 for value in sizes]
    volumes = [*filled, *np.log(np.maximum(filled, 1.0)), function.lv_ef or 0.0, function.rv_ef or 0.0]
    wall = []
    for frame in mask:
        slices = [value for value in wall_thickness(frame, spacing=spacing, oriented=False).slices if value is not None]
        wall += [np.mean(slices), np.max(slices), np.min(slices), np.std(slices)] if slices else [0.0] * 4
    return {"volumes": list(map(float, volumes)), "volumes_and_wall": [float(value) for value in (*volumes, *wall)]}


def of_patients(masks: Sequence[np.ndarray], spacings: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    """Numbers (N, D) of all patients by the name of the set."""
    rows = [numbers(mask, spacing) for mask, spacing in zip(masks, spacings, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in SETS}
