"""Which places an answer hangs on: hide one after the other and ask the network again.

Occlusion (Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014) asks the model nothing
but its output, so that it works on any exported network, also on one through which no gradient flows. It shows what
the network reacted to, not whether that is a sign of disease.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_fedlora.clinic.bundle import Classifier

_STEPS = 8
"""Windows per axis of the image plane (ours); each is two steps wide, so that neighbours overlap by half."""


def occlusion_map(classifier: Classifier, prepared: Tensor, *, target: int) -> Tensor:
    """How much the evidence for a class falls when a place is hidden.

    A square window of the image plane is set to the mean of its channel and slice, in all slices and both frames of a
    cine at once, and the fall of the class's log-probability is given to the pixels of the window; overlapping windows
    are averaged.

    Args:
        classifier: the model.
        prepared: what the network sees: (C, X, Y, Z) or (C, H, W).
        target: index of the class.

    Returns:
        (X, Y) or (H, W) differences of natural logarithms: positive where the place speaks for the class, negative
        where it speaks against it.
    """
    rows, columns = prepared.shape[1:3]
    hidden = prepared.mean(dim=(1, 2), keepdim=True).expand_as(prepared)
    whole = classifier.log_probabilities(prepared)[target]
    total, count = torch.zeros(rows, columns), torch.zeros(rows, columns)
    for row in _windows(rows):
        for column in _windows(columns):
            covered = prepared.clone()
            covered[:, row, column] = hidden[:, row, column]
            total[row, column] += whole - classifier.log_probabilities(covered)[target]
            count[row, column] += 1
    return _smooth(total / count)


def _windows(length: int) -> list[slice]:
    step = max(1, math.ceil(length / _STEPS))
    return [slice(max(start - step, 0), min(start + step, length)) for start in range(0, length + 1, step)]


def _smooth(values: Tensor) -> Tensor:
    """Blur the edges of the windows by half a step."""
    width = max(1, math.ceil(min(values.shape) / _STEPS)) | 1
    padded = F.pad(values[None, None], [width // 2] * 4, mode="replicate")
    return F.avg_pool2d(padded, width, stride=1)[0, 0]
