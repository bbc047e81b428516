"""Numbers of a heart from the volumes of its structures: scriptable, in plain torch.

The exported module computes its numbers with these functions, as everything else in the package does. A volume is the
number of voxels times their size, with the slice distance (thickness and gap) as their height, as in the summation of
discs over all slices (Schulz-Menger et al., "Standardized image interpretation and post-processing in cardiovascular
magnetic resonance", J Cardiovasc Magn Reson 2020). Papillary muscles belong to whatever the mask calls them.
"""

import math

import torch
from torch import Tensor

DENSITY = 1.05
"""Density of heart muscle in g/mL."""


def structure_volumes(mask: Tensor, sizes: list[float], values: list[int]) -> Tensor:
    """Volume of every structure in every frame.

    Args:
        mask: (F, X, Y, Z) whole numbers.
        sizes: of a voxel along each axis in mm, in any order.
        values: K values of structures in the mask; 0 for one that the mask does not outline.

    Returns:
        (F, K) float64, mL; NaN for a structure that is not outlined.
    """
    voxel = sizes[0] * sizes[1] * sizes[2] / 1000.0
    found: list[Tensor] = []
    for value in values:
        counts = (mask == value).flatten(1).sum(dim=1).double()
        found.append(counts * voxel if value > 0 else torch.full_like(counts, math.nan))
    return torch.stack(found, dim=1)


def without_impossible(volumes: Tensor) -> Tensor:
    """The volumes without those of which no number should be given to a reader.

    These are muscle that was not found at end-diastole, and a right ventricle that was not found in both frames or is
    larger at end-systole.

    Args:
        volumes: (2, 3) of LV, MYO and RV at end-diastole and end-systole, mL.

    Returns:
        The same with NaN in their place.
    """
    left, muscle, right = volumes[:, 0], volumes[:, 1], volumes[:, 2]
    nothing = torch.full_like(left, math.nan)
    muscle = torch.where(muscle[0] > 0, muscle, nothing)
    right = torch.where((right[1] > 0) & (right[1] <= right[0]), right, nothing)
    return torch.stack([left, muscle, right], dim=1)


def numbers_of(volumes: Tensor, density: float = DENSITY) -> Tensor:
    """Volumes, ejection fractions and mass.

    Args:
        volumes: (2, 3) float64 of LV, MYO and RV at end-diastole and end-systole, mL; NaN for one without a number.
        density: of the muscle, g/mL.

    Returns:
        (9,) in the order of :data:`monai_fedlora.measures.heart_function.UNITS`; NaN where there is none, as for the
        ejection fraction of a ventricle that is empty at end-diastole.
    """
    left = _ejected(volumes[:, 0])
    right = _ejected(volumes[:, 2])
    return torch.cat([left, (density * volumes[0, 1]).reshape(1), right])


def _ejected(volumes: Tensor) -> Tensor:
    """(4,) of a ventricle from its volumes (2,): end-diastolic, end-systolic and stroke volume, ejection fraction."""
    full, stroke = volumes[0], volumes[0] - volumes[1]
    fraction = torch.where(full > 0, 100.0 * stroke / full, torch.full_like(full, math.nan))
    return torch.stack([full, volumes[1], stroke, fraction])
