"""Occlusion maps: hide one region of the image after the other, and see how the answer changes.

Occlusion (Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014), as Captum computes it,
needs the outputs of the model only, no gradients, so that it works on any exported network. It shows what the network
reacted to, not whether that is a sign of disease.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.errors import ConfigError

_STEPS = 8
"""Steps per axis of the image plane (ours); each window is two steps wide, so that neighbours overlap by half."""
_AT_ONCE = 8
"""Occluded images per batch (ours)."""


def need_captum() -> Any:
    """Import Captum's occlusion.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from captum.attr import Occlusion
    except ImportError as error:
        raise ConfigError(
            "to find the places that an answer hangs on needs a further package: pip install 'monai-fedlora[clinic]'; "
            "or leave them out (--no-overlay)"
        ) from error
    return Occlusion


def occlusion_map(
    classifier: Classifier, prepared: Tensor, *, target: int, on_batch: Callable[[], None] = lambda: None
) -> Tensor:
    """By how much the probability of a class falls when a region is hidden.

    A square window of the image plane is set to the mean of its channel and slice, in all slices and both frames of a
    cine at once. The fall of the class's probability is assigned to the pixels of the window; overlapping windows are
    averaged. Windows extend over the border by half, so that every pixel is covered equally often.

    Args:
        classifier: the model.
        prepared: input of the network, (C, X, Y, Z) or (C, H, W).
        target: index of the class.
        on_batch: called before every batch; an exception that it raises ends the computation.

    Returns:
        (X, Y) or (H, W) differences of probabilities in [-1, 1]: positive where the region speaks for the class,
        negative where it speaks against it. The colours are those of :mod:`monai_fedlora.clinic.overlay`.

    Raises:
        ConfigError: Captum is not installed.
    """
    method = need_captum()
    rows, columns = prepared.shape[1:3]
    down, across = (max(1, math.ceil(length / _STEPS)) for length in (rows, columns))
    borders = [0, 0] * (prepared.dim() - 3) + [across, across - columns % across, down, down - rows % down]

    def inside(images: Tensor) -> Tensor:
        return images[:, :, down : down + rows, across : across + columns]

    def answers(images: Tensor) -> Tensor:
        on_batch()
        return classifier.batch_log_probabilities(inside(images)).exp()

    hidden = prepared.mean(dim=(1, 2), keepdim=True).expand_as(prepared)
    fall = method(answers).attribute(
        F.pad(prepared, borders)[None],
        baselines=F.pad(hidden, borders)[None],
        sliding_window_shapes=(len(prepared), 2 * down, 2 * across, *prepared.shape[3:]),
        strides=(len(prepared), down, across, *prepared.shape[3:]),
        target=target,
        perturbations_per_eval=_AT_ONCE,
    )
    return _smooth(inside(fall)[0, 0].reshape(rows, columns, -1)[..., 0])


def _smooth(values: Tensor) -> Tensor:
    """Blur the edges of the windows by half a step."""
    width = max(1, math.ceil(min(values.shape) / _STEPS)) | 1
    padded = F.pad(values[None, None], [width // 2] * 4, mode="replicate")
    return F.avg_pool2d(padded, width, stride=1)[0, 0]
