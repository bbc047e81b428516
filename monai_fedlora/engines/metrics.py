"""Classification metrics that stay correct when a site lacks a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from monai_fedlora.errors import DataError

CALIBRATION_BINS = 15
"""Confidence bins of equal width of the calibration error."""
METRICS = ("balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc", "ece", "accuracy")
LOWER_IS_BETTER = frozenset({"ece"})
_SUM_TOLERANCE = 1e-3


def classification_metrics(probabilities: Any, labels: Any, *, n_bins: int = CALIBRATION_BINS) -> dict[str, Any]:
    """Summarise predictions of one data set.

    The result does not depend on the order of the cases, to the last bit. Averages over classes run over the
    classes that occur in ``labels``.

    Args:
        probabilities: (N, C) array or tensor, rows non-negative and summing to 1; C >= 2, N >= 1.
        labels: (N,) class indices in [0, C).
        n_bins: equal-width confidence bins of the calibration error.

    Returns:
        A JSON-compatible dictionary; None where a value is undefined:

        - ``balanced_accuracy``: mean recall; None with cases of one class alone, of which answering always the same
          would have all;
        - ``sensitivity``, ``specificity``: for two classes those of class 1, the pathology (None without a
          case of the class concerned); for more, means of the one-against-rest values;
        - ``auroc``: for two classes the area of class 1's score; for more, the mean one-against-rest area
          over classes that have both positive and negative cases; None if no class has;
        - ``mcc``: multi-class Matthews correlation (Gorodkin 2004, doi 10.1016/j.compbiolchem.2004.09.006), 0
          where a marginal is constant;
        - ``ece``: expected calibration error of the top class (Guo et al., ICML 2017, eq. 3);
        - ``accuracy``, ``n``, and ``confusion_matrix`` with a row per true and a column per predicted class.

    Raises:
        DataError: there is no case, a shape or a label is wrong, or a row is not a probability distribution.
    """
    scores, truth = _validate(probabilities, labels)
    n_cases, n_classes = scores.shape
    predicted = scores.argmax(axis=1)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    support = confusion.sum(axis=1)
    hits = np.diag(confusion)
    recall = [_ratio(hits[c], support[c]) for c in range(n_classes)]
    false_positives = confusion.sum(axis=0) - hits
    true_negative_rate = [
        _ratio(n_cases - support[c] - false_positives[c], n_cases - support[c]) if support[c] else None
        for c in range(n_classes)
    ]
    areas = [_area(scores[:, c], truth == c) for c in range(n_classes)]
    binary = n_classes == 2
    return {
        "balanced_accuracy": _mean(recall) if np.count_nonzero(support) > 1 else None,
        "sensitivity": recall[1] if binary else _mean(recall),
        "specificity": recall[0] if binary else _mean(true_negative_rate),
        "auroc": areas[1] if binary else _mean(areas),
        "mcc": _matthews(confusion),
        "ece": _calibration_error(scores.max(axis=1), predicted == truth, n_bins),
        "accuracy": int(hits.sum()) / n_cases,
        "n": n_cases,
        "confusion_matrix": confusion.tolist(),
    }


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        return value.numpy()
    return np.asarray(value)


def _validate(probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = _array(probabilities).astype(np.float64), _array(labels)
    if scores.ndim != 2 or scores.shape[1] < 2 or truth.shape != scores.shape[:1]:
        raise DataError(f"predictions have shape {scores.shape} and labels {truth.shape}; they must be (N, C) and (N,)")
    if len(truth) == 0:
        raise DataError("there is no case to evaluate; the data list's split is empty")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(truth)} predictions are not finite; training diverged or an image is damaged")
    if (scores < 0).any() or (np.abs(scores.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
        raise DataError("predictions are not probabilities; apply a softmax to the logits first")
    whole = truth.astype(np.int64)
    if (whole != truth).any() or (whole < 0).any() or (whole >= scores.shape[1]).any():
        raise DataError(f"labels must be whole numbers in [0, {scores.shape[1]}); found {np.unique(truth)[:8]}")
    return scores, whole


def _ratio(part: int, whole: int) -> float | None:
    return int(part) / int(whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _area(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve from mid-ranks (Mann-Whitney U)."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    u_statistic = ranks[place][positive].sum() - n_positive * (n_positive + 1) / 2
    return float(u_statistic / (n_positive * n_negative))


def _matthews(confusion: np.ndarray) -> float:
    total, correct = int(confusion.sum()), int(np.trace(confusion))
    truth = [int(v) for v in confusion.sum(axis=1)]
    predicted = [int(v) for v in confusion.sum(axis=0)]
    covariance = correct * total - sum(t * p for t, p in zip(truth, predicted, strict=True))
    spread = (total**2 - sum(p * p for p in predicted)) * (total**2 - sum(t * t for t in truth))
    return covariance / math.sqrt(spread) if spread else 0.0


def confidence_bins(confidence: np.ndarray, n_bins: int = CALIBRATION_BINS) -> np.ndarray:
    """The bin of every confidence in 0..1, of `n_bins` with equal widths; an upper edge belongs to its bin."""
    edges = np.linspace(0, 1, n_bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)


def _calibration_error(confidence: np.ndarray, correct: np.ndarray, n_bins: int) -> float:
    places = confidence_bins(confidence, n_bins)
    gaps = [
        abs(math.fsum(confidence[places == place]) - int(correct[places == place].sum()))
        for place in np.unique(places).tolist()
    ]
    return math.fsum(gaps) / len(confidence)
