"""Which part of a photograph the network sees, in pure torch, so that it can be scripted for an exported bundle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_fedlora.transforms.localise import percentile


def centre_square(image: Tensor) -> Tensor:
    """Cut the largest centred square out of (B, 3, H, W); the odd pixel is left at the bottom or right."""
    height, width = image.shape[2], image.shape[3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, :, top : top + side, left : left + side]


def field_of_view(image: Tensor) -> tuple[int, int, int, int]:
    """Find the lit disc of a fundus photograph inside its dark surround.

    The photograph's brightest channel is averaged over cells, so that noise of the surround vanishes. The surround's
    level is that of the darkest corner; the disc is what lies above it by a tenth of the way to the bright end
    (95th percentile). Rows and columns with less than a twentieth of the longest row's or column's disc do not count,
    so that neither specks nor an inscription widen the box. All limits are ours.

    Args:
        image: (3, H, W) in [0, 1].

    Returns:
        First row, row after the last, first column, column after the last; the whole image if no corner is darker
        than a quarter of the bright end, or if nothing is lit.
    """
    height, width = image.shape[1], image.shape[2]
    cell = max(1, min(height, width) // 128)
    level = F.avg_pool2d(image.amax(dim=0)[None, None], cell, ceil_mode=True, count_include_pad=False)[0, 0]
    rows, columns = level.shape[0], level.shape[1]
    corner = max(1, min(rows, columns) // 20)
    surround = float(
        torch.stack(
            [
                level[:corner, :corner].mean(),
                level[:corner, columns - corner :].mean(),
                level[rows - corner :, :corner].mean(),
                level[rows - corner :, columns - corner :].mean(),
            ]
        ).min()
    )
    bright = float(percentile(level, 95.0))
    if surround >= 0.25 * bright:
        return 0, height, 0, width
    lit = (level > surround + 0.1 * (bright - surround)).float()
    top, bottom = _extent(lit.sum(dim=1))
    left, right = _extent(lit.sum(dim=0))
    return top * cell, min(bottom * cell, height), left * cell, min(right * cell, width)


def _extent(lengths: Tensor) -> tuple[int, int]:
    """First entry of at least a twentieth of the largest, and the one after the last."""
    inside = (lengths >= 0.05 * lengths.max()).nonzero()[:, 0]
    return int(inside[0]), int(inside[-1]) + 1


def disc_square(image: Tensor) -> Tensor:
    """Cut the square around the lit disc out of (3, H, W) and fill with black what the sensor cut off."""
    top, bottom, left, right = field_of_view(image)
    crop = image[:, top:bottom, left:right]
    height, width = crop.shape[1], crop.shape[2]
    side = max(height, width)
    down, across = side - height, side - width
    return F.pad(crop, [across // 2, across - across // 2, down // 2, down - down // 2])


def resize(image: Tensor, size: int) -> Tensor:
    """Scale (B, 3, S, S) to (B, 3, size, size), bilinear and antialiased, into [0, 1]."""
    scaled = F.interpolate(image, size=[size, size], mode="bilinear", align_corners=False, antialias=True)
    return scaled.clamp(0.0, 1.0)
