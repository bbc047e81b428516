"""Masks on the network's grid, and back on that of the file.

Plain torch without MONAI, and scriptable, as `localise` is. The voxels of a mask are those of
its image, so that both take the same way: the same order of axes, the same resampling, the same crop.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_fedlora.transforms.localise import crop_start, heart_centre
from monai_fedlora.transforms.orientation import orient, reading_order
from monai_fedlora.transforms.resampling import resample


def resample_labels(mask: Tensor, affine: Tensor, spacing: list[float], labels: int) -> Tensor:
    """`resampling.resample` of every label's share of a voxel, and the label with the largest share.

    Args:
        mask: (F, X, Y, Z), labels from 0 to ``labels``.
        affine: (4, 4) voxel to world in mm.
        spacing: wanted voxel size in mm along the three axes.
        labels: number of labels besides 0.

    Returns:
        (F, X', Y', Z') uint8 on the grid of the resampled image.
    """
    best = resample((mask == 0).float(), affine, spacing)[0]
    found = torch.zeros_like(best, dtype=torch.uint8)
    for label in range(1, labels + 1):
        share = resample((mask == label).float(), affine, spacing)[0]
        found = torch.where(share > best, torch.full_like(found, label), found)
        best = torch.maximum(share, best)
    return found


def crop_like_image(mask: Tensor, image: Tensor, size: tuple[int, int, int], spacing_mm: float) -> Tensor:
    """Crop and pad what lies on an image's grid as `localise.normalise_cine` crops and pads the image.

    Args:
        mask: (F, X, Y, Z).
        image: (2, X, Y, Z) ED and ES grey levels, whose motion shows where the heart is.
        size: voxels (x, y, z) of the result.
        spacing_mm: in-plane voxel width in mm.

    Returns:
        (F, \\*size), 0 where there is padding.
    """
    start, before = _crop(image, size, spacing_mm)
    crop = mask[:, start[0] : start[0] + size[0], start[1] : start[1] + size[1], start[2] : start[2] + size[2]]
    padding: list[int] = []
    for axis in (2, 1, 0):
        padding += [before[axis], size[axis] - crop.shape[axis + 1] - before[axis]]
    return F.pad(crop, padding)


def restore_labels(scores: Tensor, image: Tensor, affine: Tensor, spacing: tuple[float, float, float]) -> Tensor:
    """Turn a network's output into a mask on the grid of the file that its input came from.

    Probabilities are interpolated linearly along the three axes at the centres of the file's voxels, and the most
    probable class is taken there. What lies outside the network's crop is background, as are slices beyond the number
    that the network takes.

    Args:
        scores: (F, C, X, Y, Z) probabilities of the background and the structures on the network's grid; logits are
            not in [0, 1], so take their softmax first.
        image: (2, X', Y', Z') grey levels in any order of axes, as read from the file, from which the network's input
            was made.
        affine: (4, 4) of ``image``.
        spacing: voxel size (x, y, z) of the network's grid in mm.

    Returns:
        (F, X', Y', Z') uint8, in the order of axes of ``image``.
    """
    oriented, moved = orient(image, affine)
    steps = [spacing[0], spacing[1], spacing[2]]
    resampled, _ = resample(oriented, moved, steps)
    size = (scores.shape[2], scores.shape[3], scores.shape[4])
    start, before = _crop(resampled, size, spacing[0])
    result = scores.float()
    for axis in range(3):
        step = float(moved[:3, axis].double().square().sum().sqrt())
        ratio = spacing[axis] / step
        if abs(ratio - 1.0) <= 1e-4:
            ratio = 1.0
        result = _along(result, axis + 2, oriented.shape[axis + 1], ratio, before[axis] - start[axis])
    labels = result.argmax(dim=1).to(torch.uint8)
    axes, backwards, _ = reading_order(affine, [image.shape[1], image.shape[2], image.shape[3]])
    flipped: list[int] = []
    inverse = [0]
    for new in range(3):
        inverse.append(axes.index(new) + 1)
        if backwards[new]:
            flipped.append(new + 1)
    return labels.flip(flipped).permute(inverse).contiguous()


def _crop(image: Tensor, size: tuple[int, int, int], spacing_mm: float) -> tuple[list[int], list[int]]:
    """First voxels of the crop of `localise.normalise_cine`, and numbers of voxels padded before it."""
    centre = heart_centre(image, spacing_mm)
    start = [
        crop_start(float(centre[0]), image.shape[1], size[0]),
        crop_start(float(centre[1]), image.shape[2], size[1]),
        max(image.shape[3] - size[2], 0) // 2,
    ]
    before = [max(size[0] - image.shape[1], 0) // 2, max(size[1] - image.shape[2], 0) // 2, 0]
    return start, before


def _along(scores: Tensor, axis: int, count: int, ratio: float, shift: int) -> Tensor:
    """Interpolate scores (F, C, ...) along an axis at ``count`` file voxels, ``1 / ratio`` of a network's voxel apart.

    The first file voxel lies at ``shift`` of the scores. Beyond half a voxel outside, everything is class 0.
    """
    place = torch.arange(count, device=scores.device, dtype=torch.float64) / ratio + float(shift)
    size = scores.shape[axis]
    inside = (place > -0.5 - 1e-6) & (place < size - 0.5 + 1e-6)
    place = place.clamp(0.0, float(size - 1))
    below = place.floor().clamp(max=float(max(size - 2, 0)))
    sizes: list[int] = []
    for other in range(5):
        sizes.append(count if other == axis else 1)
    weight = (place - below).float().reshape(sizes)
    low = below.long()
    first = scores.index_select(axis, low)
    second = scores.index_select(axis, (low + 1).clamp(max=size - 1))
    values = first + (second - first) * weight
    nothing = torch.cat([torch.ones_like(values[:, :1]), torch.zeros_like(values[:, 1:])], dim=1)
    return torch.where(inside.reshape(sizes), values, nothing)
