"""The likelihood-ratio attack (LiRA) of Carlini et al., "Membership Inference Attacks From First Principles", 2022.

Of models that were trained with a case and without it, the confidence in its label, logit-scaled, is about normally
distributed; the score is how much likelier the model's own confidence is under the first than under the second
(arXiv 2112.03570, algorithm 1, online). With fewer than :data:`ENOUGH_RUNS` shadow runs one variance is taken for all
cases, as the paper does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError

ENOUGH_RUNS = 64
"""Shadow runs from which on every case has a variance of its own (section VI of the paper)."""

FEWEST_RUNS = 2


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) of the probability of the label: (N,) float64 of (N, C) and (N,)."""
    values = logits.double()
    right = torch.nn.functional.one_hot(labels.long(), values.shape[1]).bool()
    others = values.masked_fill(right, -math.inf).logsumexp(dim=1)
    return values[right] - others


def halves(labels: Tensor, *, run: int, seed: int) -> Tensor:
    """Which patients a shadow run trains on: half of each class, drawn anew for every second run; the other half next.

    Args:
        labels: (P,) class of each patient.
        run: from 0.
        seed: of the draw.

    Returns:
        (P,) bool.
    """
    generator = torch.Generator().manual_seed(seed + run // 2)
    inside = torch.zeros(len(labels), dtype=torch.bool)
    spare = 0
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        order = places[torch.randperm(len(places), generator=generator)]
        inside[order[spare % 2 :: 2]] = True
        spare += len(places)
    return inside if run % 2 == 0 else ~inside


def lira_scores(target: Tensor, shadows: Tensor, inside: Tensor) -> Tensor:
    """How much likelier members' confidence is the model's than others'.

    Args:
        target: (P,) of the attacked model.
        shadows: (R, P) of the shadow models.
        inside: (R, P) bool, which of them were trained with the case.

    Returns:
        (P,) logarithms of the ratio.

    Raises:
        ExportError: there are too few runs.
    """
    if len(shadows) < FEWEST_RUNS or not bool(inside.any(dim=0).all() and (~inside).any(dim=0).all()):
        raise ExportError(f"{len(shadows)} shadow runs are too few: it takes {FEWEST_RUNS}, and every case in and out")
    scores = torch.zeros_like(target)
    for sign, mask in ((1.0, inside), (-1.0, ~inside)):
        count = mask.sum(dim=0)
        mean = (shadows * mask).sum(dim=0) / count
        squares = ((shadows - mean) ** 2 * mask).sum(dim=0)
        if len(shadows) >= ENOUGH_RUNS:
            variance = squares / (count - 1).clamp(min=1)
        else:
            variance = (squares.sum() / (count - 1).clamp(min=0).sum().clamp(min=1)).expand_as(mean)
            if not bool(variance[0] > 0):
                variance = ((shadows - shadows.mean(dim=0)) ** 2).mean().expand_as(mean)
        variance = variance.clamp(min=1e-12)
        scores = scores + sign * (-((target - mean) ** 2) / (2 * variance) - variance.log() / 2)
    return scores
