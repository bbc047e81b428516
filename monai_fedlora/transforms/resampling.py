"""Bring a stack to the network's voxel size: linear interpolation, one axis after the other.

Plain torch without MONAI, and scriptable: training, prediction and the exported module run this code.

The first voxel stays where it is. The last one lies at most half a step beyond the end of the stack and has the levels
of the stack's last voxel. For a stack along the world's axes MONAI's ``Spacing(pixdim, mode="bilinear",
padding_mode="border", align_corners=True)`` computes the same; an oblique one MONAI moves by less than a voxel.
"""

import math

import torch
from torch import Tensor


def resample(image: Tensor, affine: Tensor, spacing: list[float]) -> tuple[Tensor, Tensor]:
    """Interpolate at multiples of a voxel size, starting at the first voxel.

    Slices are always resampled too: in some collections their distance correlates with the diagnosis, so that the
    number of slices would reveal the class.

    Args:
        image: (C, X, Y, Z).
        affine: (4, 4) voxel to world in mm.
        spacing: wanted voxel size in mm along the three axes; an axis whose voxel size differs by less than 0.01 %
        stays
            as it is.

    Returns:
        float32 (C, X', Y', Z') and its affine.

    Raises:
        ValueError: the result would have more than 4096 voxels along an axis.
    """
    result = image.float()
    columns: list[Tensor] = []
    for axis in range(3):
        step = float(affine[:3, axis].double().square().sum().sqrt())
        ratio = spacing[axis] / step
        column = affine[:, axis]
        if abs(ratio - 1.0) > 1e-4:
            result = _resample_axis(result, axis + 1, ratio)
            column = column * ratio
        columns.append(column)
    columns.append(affine[:, 3])
    return result, torch.stack(columns, dim=1)


def _resample_axis(image: Tensor, axis: int, ratio: float) -> Tensor:
    """Interpolate (C, X, Y, Z) along an axis at multiples of ``ratio`` voxels."""
    count = image.shape[axis]
    new_count = math.floor((count - 1) / ratio + 1.5 - 1e-4)
    if new_count > 4096:
        raise ValueError("the voxel size of the affine cannot be that of a heart's images; are the units mm?")
    place = torch.arange(new_count, device=image.device, dtype=torch.float64) * ratio
    place = place.clamp(max=float(count - 1))
    below = place.floor().clamp(max=float(max(count - 2, 0)))
    sizes: list[int] = []
    for other in range(4):
        sizes.append(new_count if other == axis else 1)
    weight = (place - below).float().reshape(sizes)
    low = below.long()
    first = image.index_select(axis, low)
    second = image.index_select(axis, (low + 1).clamp(max=count - 1))
    return first + (second - first) * weight
