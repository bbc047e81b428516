"""The colours of occlusion maps, the same on every picture.

Red speaks for the answer (hiding the region lowers its probability), blue against it. Colour and opacity follow one
fixed scale in percentage points, so that a weak map looks weak and two studies can be compared; changes below
:data:`THRESHOLD` are not coloured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

AN_AID = "an aid, not evidence"
THRESHOLD = 0.01
"""Smallest change of a probability that is coloured (ours): one percentage point."""
FULL = 0.20
"""Change of a probability at which the colour is strongest (ours)."""
_FAINTEST, _STRONGEST = 0.25, 0.7
"""Opacity at a change of 0 and at :data:`FULL` (ours); linear in between."""
_FOR, _AGAINST = (255, 70, 0), (0, 120, 255)


def is_shown(relevance: Tensor) -> bool:
    """Whether any region changes the answer enough to be coloured."""
    return bool(relevance.numel()) and float(relevance.abs().max()) >= THRESHOLD


def colours(relevance: np.ndarray) -> np.ndarray:
    """Colour a map.

    Args:
        relevance: (...) changes of a probability, see :mod:`monai_fedlora.clinic.occlusion`.

    Returns:
        (..., 4) uint8: red, green, blue, opacity; all 0 below the threshold, and where nothing changes.
    """
    size = np.abs(relevance)
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * np.clip(size / FULL, 0, 1)
    colour = np.where((relevance > 0)[..., None], _FOR, _AGAINST)
    found = np.concatenate([colour, np.rint(255 * opacity)[..., None]], axis=-1)
    return np.where(((size >= THRESHOLD) & (size > 0))[..., None], found, 0).astype(np.uint8)


def lay_over(picture: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Lay the colours of a map over a picture.

    Args:
        picture: (height, width, 3) levels in 0..255.
        relevance: (height, width).

    Returns:
        (height, width, 3) float.
    """
    coloured = colours(relevance).astype(float)
    opacity = coloured[..., 3:] / 255
    return (1 - opacity) * picture + opacity * coloured[..., :3]


def in_depth(relevance: Tensor, prepared: Tensor) -> Tensor:
    """Repeat a map of the image plane on all slices, with 0 in the padding around the image.

    Args:
        relevance: (X, Y).
        prepared: (2, X, Y, Z), input of the network, padded with zeros.

    Returns:
        (X, Y, Z), 0 in the padding.
    """
    seen = prepared.abs().amax(dim=0)
    inside = torch.ones_like(seen)
    for axis in range(3):
        filled = seen.amax(dim=[other for other in range(3) if other != axis]).nonzero().flatten()
        span = torch.zeros(seen.shape[axis])
        if len(filled):
            span[int(filled[0]) : int(filled[-1]) + 1] = 1
        shape = [1, 1, 1]
        shape[axis] = -1
        inside = inside * span.view(shape)
    return relevance[..., None] * inside


def explain_overlay(relevance: Tensor, *, answer: str) -> str:
    """Explain the colours of a map in words.

    Args:
        relevance: changes of the probability of the answer.
        answer: name of the class.
    """
    most, least = (max(float(value), 0.0) for value in (relevance.max(), -relevance.min()))
    if not is_shown(relevance):
        return f"Hiding no single place changes the probability of {answer} by {points(THRESHOLD)} or more."
    parts = []
    if most >= THRESHOLD:
        parts.append(f"red: hiding the place lowers the probability of {answer}, by up to {points(most)}")
    if least >= THRESHOLD:
        what = "it raises it" if parts else f"hiding the place raises the probability of {answer}"
        parts.append(f"blue: {what}, by up to {points(least)}")
    said = "; ".join(parts)
    return (
        f"{said[0].upper()}{said[1:]}. Less than {points(THRESHOLD)} is not coloured. This is what the network "
        f"reacted to, {AN_AID}."
    )


def scale() -> dict[str, Any]:
    """The legend as data: changes in percentage points and their colours (0..255)."""
    sides = np.linspace(THRESHOLD, FULL, 6)
    steps = np.concatenate([-sides[::-1], sides])
    return {
        "unit": "percentage points",
        "threshold": 100 * THRESHOLD,
        "full": 100 * FULL,
        "colours": [
            {"points": round(100 * float(step), 2), "rgba": colour.tolist()}
            for step, colour in zip(steps, colours(steps), strict=True)
        ],
    }


def points(change: float) -> str:
    """A change of a probability in words, such as "3 points"."""
    number = f"{100 * change:.1f}".removesuffix(".0")
    return f"{number} point" if number == "1" else f"{number} points"
