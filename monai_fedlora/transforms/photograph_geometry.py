"""Cropping and scaling of photographs in plain torch, scriptable for exported bundles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_fedlora.transforms.localise import percentile


def centre_box(height: int, width: int) -> tuple[int, int, int, int]:
    """The largest centred square of an image, as `field_of_view` gives one; an odd pixel is left at the end."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return top, top + side, left, left + side


def centre_square(image: Tensor) -> Tensor:
    """Crop the largest centred square from (B, 3, H, W); an odd pixel is dropped at the bottom or right."""
    return cut_square(image, centre_box(image.shape[2], image.shape[3]))


def cut_square(image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Cut a part out of (..., H, W) and pad it with zeros to the smallest square, (..., S, S), in whose middle it is.

    Args:
        image: colours, or labels.
        box: first row, row after the last, first column, column after the last.
    """
    crop = image[..., box[0] : box[1], box[2] : box[3]]
    side = max(crop.shape[-2], crop.shape[-1])
    down, across = side - crop.shape[-2], side - crop.shape[-1]
    return F.pad(crop, [across // 2, across - across // 2, down // 2, down - down // 2])


def field_of_view(image: Tensor) -> tuple[int, int, int, int]:
    """Find the lit disc of a fundus photograph inside its dark surround.

    The brightest channel is averaged over cells, which removes noise of the surround. The level of the surround is that
    of the darkest corner; the disc is where the level exceeds it by a tenth of the difference between it and the 95th
    percentile. Structures thinner than a tenth of the shorter side (specks, text) are removed by a morphological
    opening. All limits are ours.

    Args:
        image: (3, H, W) in [0, 1].

    Returns:
        First row, row after the last, first column, column after the last; the whole image if no corner is darker than
        a quarter of the 95th percentile, or if nothing remains after the opening.
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
    lit = (level > surround + 0.1 * (bright - surround)).float()[None, None]
    reach = min(rows, columns) // 20
    core = -F.max_pool2d(-lit, 2 * reach + 1, stride=1, padding=reach)
    disc = F.max_pool2d(core, 2 * reach + 1, stride=1, padding=reach)[0, 0] > 0.0
    if not bool(disc.any()):
        return 0, height, 0, width
    inside_rows = disc.any(dim=1).nonzero()[:, 0]
    inside_columns = disc.any(dim=0).nonzero()[:, 0]
    top, bottom = int(inside_rows[0]) * cell, (int(inside_rows[-1]) + 1) * cell
    left, right = int(inside_columns[0]) * cell, (int(inside_columns[-1]) + 1) * cell
    return top, min(bottom, height), left, min(right, width)


def disc_square(image: Tensor) -> Tensor:
    """Crop the square around the lit disc from (3, H, W); parts outside of the disc's box are black."""
    return cut_square(image, field_of_view(image))


def resize(image: Tensor, size: int) -> Tensor:
    """Scale (B, C, S, S) to (B, C, size, size), bilinear and antialiased, into [0, 1]."""
    scaled = F.interpolate(image, size=[size, size], mode="bilinear", align_corners=False, antialias=True)
    return scaled.clamp(0.0, 1.0)
