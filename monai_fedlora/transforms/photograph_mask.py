"""Masks of photographs on the network's grid, and back on that of the photograph.

Plain torch, and scriptable, as `photograph_geometry` is. A mask is cut where its photograph is cut and scaled as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_fedlora.transforms.photograph_geometry import cut_square, resize


def shrink_labels(mask: Tensor, box: tuple[int, int, int, int], size: int, labels: int) -> Tensor:
    """Cut and scale a mask as its photograph: every pixel has the label with the largest share of it.

    Shares are scaled by `photograph_geometry.resize`, as colours are. Of equal shares the smaller label counts.

    Args:
        mask: (1, H, W), labels from 0 to ``labels``.
        box: part of the photograph that the network takes, see `photograph_geometry.cut_square`.
        size: pixels of the network's input along each side.
        labels: number of labels besides 0.

    Returns:
        (1, size, size) uint8.
    """
    square = cut_square(mask, box)[None]
    best = resize((square == 0).float(), size)[0]
    found = torch.zeros_like(best, dtype=torch.uint8)
    for label in range(1, labels + 1):
        share = resize((square == label).float(), size)[0]
        found = torch.where(share > best, torch.full_like(found, label), found)
        best = torch.maximum(share, best)
    return found


def restore_photograph_labels(scores: Tensor, box: tuple[int, int, int, int], height: int, width: int) -> Tensor:
    """Turn a network's output into a mask on the grid of the photograph that its input came from.

    Probabilities are interpolated linearly at the centres of the photograph's pixels, and the most probable class is
    taken there; of equal ones the first counts. What the network did not see is background.

    Args:
        scores: (F, C, S, S) probabilities of the background and the structures; logits are not in [0, 1], so take
            their softmax first.
        box: part of the photograph that the network took, see `photograph_geometry.cut_square`.
        height, width: pixels of the photograph, upright.

    Returns:
        (F, H, W) uint8.
    """
    rows, columns = box[1] - box[0], box[3] - box[2]
    side = max(rows, columns)
    whole = F.interpolate(scores.float(), size=[side, side], mode="bilinear", align_corners=False)
    top, left = (side - rows) // 2, (side - columns) // 2
    labels = whole[:, :, top : top + rows, left : left + columns].argmax(dim=1).to(torch.uint8)
    return F.pad(labels, [box[2], width - box[3], box[0], height - box[1]])
