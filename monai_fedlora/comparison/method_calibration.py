"""How far the probabilities of every method are from what happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fedlora.comparison.patient_draws import DRAWS, Array, CasesTested, Estimate, draws, estimate, weighted_means
from monai_fedlora.engines.metrics import CALIBRATION_BINS, confidence_bins

_SEED = 15


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration of a method, mean over its sites and over runs.

    Attributes:
        brier: mean over cases of the squared distance between probabilities and the true class, summed over classes
            (Brier, Monthly Weather Review 78:1-3, 1950): 0 is best, 2 worst.
        error: expected calibration error of the predicted class, see
            :func:`monai_fedlora.engines.metrics.classification_metrics`: 15 bins of equal width, each with the distance
            between its mean confidence and its share of right predictions, weighted by its cases. From all folds of a
            cross-validation together.
        by_chance: the error that 5 % of models with these very confidences would exceed although every confidence is
            right; below it nothing is wrong that these cases could show. Takes cases for independent, and runs for
            lucky with the same ones, whose truth they share.
    """

    brier: Estimate
    error: Estimate
    by_chance: float


def calibration(tested: CasesTested, classes: Sequence[str], *, by_cases: bool = False) -> Calibration | None:
    """Compute the calibration of a method; None where a prediction has no probabilities.

    Args:
        tested: the cases.
        classes: names in label order.
        by_cases: whether sites count by their numbers of test cases; otherwise all alike.
    """
    names = [f"probability_{name}" for name in classes]
    found = [[[case.more.get(name) for name in names] for case in run] for run in tested.said]
    said = np.array(found, dtype=float).transpose(1, 0, 2)  # (cases, runs, classes)
    if np.isnan(said).any():
        return None
    truth = np.array([[case.label == name for name in classes] for case in tested.cases], dtype=float)
    drawn = draws(tested, by_class=True)
    brier, error, chance, counts = [], [], [], []
    rng = np.random.default_rng(_SEED)
    for site in tested.sites:
        here = tested.at(site)
        own, weights = said[here], drawn.cases[:, here]
        brier.append(weighted_means(weights, ((own - truth[here, None]) ** 2).sum(axis=2)))
        confidence = own.max(axis=2)
        right = np.take_along_axis(truth[here, None], own.argmax(axis=2)[..., None], axis=2)[..., 0]
        error.append(_errors(weights, confidence, right))
        chance.append(_by_chance(rng, confidence))
        counts.append(int(here.sum()) if by_cases else 1)
    brier_all, error_all, chance_all = (np.average(found, axis=0, weights=counts) for found in (brier, error, chance))
    return Calibration(
        brier=estimate(drawn.mean_over_runs(brier_all), bounds=(0.0, 2.0)),
        error=estimate(drawn.mean_over_runs(error_all), bounds=(0.0, 1.0)),
        by_chance=float(np.quantile(chance_all.mean(axis=1), 0.95)),
    )


def _errors(weights: Array, confidence: Array, right: Array) -> Array:
    """The calibration error of every draw and run.

    Args:
        weights: (draws, cases).
        confidence: (cases, runs).
        right: (cases, runs), 1 for right and 0 for wrong predictions.
    """
    return np.stack([_error(weights, c, r) for c, r in zip(confidence.T, right.T, strict=True)], axis=1)


def _by_chance(rng: np.random.Generator, confidence: Array) -> Array:
    """The calibration error of (:data:`DRAWS`, runs) in which predictions are right as often as they say."""
    even = np.ones((1, len(confidence)))
    luck = rng.random((DRAWS, len(confidence)))
    return np.stack([_error(even, c, luck < c) for c in confidence.T], axis=1)


def _error(weights: Array, confidence: Array, right: npt.NDArray[Any]) -> Array:
    """The error by draw, of weights (draws, cases) or, with one set of weights, of outcomes (draws, cases)."""
    bins = np.eye(CALIBRATION_BINS)[confidence_bins(confidence)]
    found: Array = np.abs(((right - confidence) * weights) @ bins).sum(axis=1) / weights.sum(axis=1)
    return found
