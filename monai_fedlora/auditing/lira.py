"""The likelihood-ratio attack (LiRA) of Carlini et al., "Membership Inference Attacks From First Principles", 2022.

Over models that were trained with a case, the logit-scaled confidence in the case's label is about normally
distributed, and likewise over models that were trained without it. The score is the logarithm of the likelihood ratio
of the attacked model's confidence under both distributions (arXiv 2112.03570, algorithm 1, online). With fewer than
:data:`ENOUGH_RUNS` shadow runs all cases share one variance, as in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError

ENOUGH_RUNS = 64
"""Number of shadow runs from which every case has a variance of its own (section VI of the paper)."""

FEWEST_RUNS = 2


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) with p the probability of the label: (N,) float64, from logits (N, C) and labels (N,)."""
    values = logits.double()
    right = torch.nn.functional.one_hot(labels.long(), values.shape[1]).bool()
    others = values.masked_fill(right, -math.inf).logsumexp(dim=1)
    return values[right] - others


def halves(labels: Tensor, *, run: int, seed: int) -> Tensor:
    """Which patients a shadow run trains on: half of each class.

    A half is drawn at random for every run with an even number; the next run trains on the other half.

    Args:
        labels: (P,) class of each patient.
        run: number of the run, from 0.
        seed: of the random draw.

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
    """Log-likelihood ratios of membership.

    Args:
        target: (P,) scaled confidences of the attacked model.
        shadows: (R, P) scaled confidences of the shadow models.
        inside: (R, P) bool, which shadow models were trained with the case.

    Returns:
        (P,) logarithms of the ratio, higher for likelier members.

    Raises:
        ExportError: there are too few runs, or a case was in all of them or in none.
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
