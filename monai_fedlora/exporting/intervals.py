"""95 % confidence intervals of test metrics, computed from counts.

None of them has zero width when every case is classified correctly, as often happens in small test sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai_fedlora.measures.heart_function import UNITS

Interval = tuple[float, float]

METHODS = {
    "accuracy": "Wilson score",
    "sensitivity": "Wilson score (two classes); as balanced_accuracy (more)",
    "specificity": "Wilson score (two classes)",
    "balanced_accuracy": "MOVER over the classes' Wilson score intervals (Zou and Donner 2008)",
    "auroc": "pseudo-score (two classes; Newcombe 2006, method 5)",
}
"""Method of each metric's interval; other metrics have none."""
COUNTS = ("n", "sites", "confusion_matrix")
"""What stands among the metrics of a view and is none, like what begins with :data:`COUNTED`."""
COUNTED = "cases_"
"""Beginning of the numbers of cases behind metrics that not all cases have."""
BOOTSTRAP = "bootstrap over cases"
"""Method of the interval of a mean over cases, of which a run records the limits."""

METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auroc": "AUROC",
    "mcc": "Matthews correlation coefficient",
    "ece": "expected calibration error",
    "scaled_error": "mean absolute error, in usual distances of each value's scale",
    "worst_site_balanced_accuracy": "balanced accuracy of the worst site",
}
"""Names of the metrics for documents."""

_PARTS = {
    "dice": "Dice",
    "native_dice": "Dice on the files' grid",
    "hausdorff_95": "Hausdorff 95 in mm",
    "mean_absolute_error": "mean absolute error",
    "bias": "bias",
    "agreement_low": "lower limit of agreement",
    "agreement_high": "upper limit of agreement",
    "correlation": "correlation",
    "unmatched": "cases with a mask in one of both alone",
}
_OF_HEART = {
    "bias": "bias",
    "low": "lower limit of agreement",
    "high": "upper limit of agreement",
    "error": "mean absolute error",
}


def metric_name(name: str) -> str:
    """Name of a metric for documents, with the structure and phase that its own name ends in.

    Examples:
        >>> metric_name("dice_LV_ED")
        'Dice of LV at ED'
        >>> metric_name("lv_ef_low")
        'lower limit of agreement of lv_ef, %'
    """
    if name in METRIC_NAMES:
        return METRIC_NAMES[name]
    number, _, what = name.rpartition("_")
    if number in UNITS and what in _OF_HEART:
        return f"{_OF_HEART[what]} of {number}, {UNITS[number]}"
    start = next((part for part in _PARTS if name == part or name.startswith(f"{part}_")), None)
    if start is None:
        return name.replace("_", " ")
    rest = name[len(start) + 1 :]
    structure, _, phase = rest.rpartition("_") if rest.endswith(("_ED", "_ES")) else (rest, "", "")
    return _PARTS[start] + (f" of {structure}" if structure else ", mean") + (f" at {phase}" if phase else "")


_Z = 1.959963984540054


def wilson(hits: int, total: int) -> Interval:
    """Score interval of a proportion (Wilson 1927, doi 10.1080/01621459.1927.10502953); ``total`` at least 1."""
    share, square = hits / total, _Z**2 / total
    centre = share + square / 2
    half = _Z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, (centre - half) / (1 + square)), min(1.0, (centre + half) / (1 + square))


def mean_of_proportions(counts: Sequence[tuple[int, int]]) -> Interval:
    """Interval of the unweighted mean of independent proportions, given as (hits, total).

    The distances of the Wilson limits are squared and added (MOVER; Zou and Donner 2008, doi 10.1002/sim.3095).
    """
    shares = [hits / total for hits, total in counts]
    limits = [wilson(*pair) for pair in counts]
    mean = math.fsum(shares) / len(counts)
    below = math.sqrt(math.fsum((share - low) ** 2 for share, (low, _) in zip(shares, limits, strict=True)))
    above = math.sqrt(math.fsum((high - share) ** 2 for share, (_, high) in zip(shares, limits, strict=True)))
    return max(0.0, mean - below / len(counts)), min(1.0, mean + above / len(counts))


def area(auroc: float, positives: int, negatives: int) -> Interval:
    """Interval of an area under the ROC curve (Newcombe 2006, doi 10.1002/sim.2324, method 5).

    It consists of the areas from which the observed one differs by at most 1.96 standard errors, which follow from the
    area by Hanley and McNeil's formula with both sample sizes set to their mean.
    """
    spare = (positives + negatives) / 2 - 1

    def excess(true: float) -> float:
        inner = 1 + spare * ((1 - true) / (2 - true) + true / (1 + true))
        return abs(auroc - true) - _Z * math.sqrt(max(0.0, true * (1 - true) * inner / (positives * negatives)))

    return _root(excess, 0.0, auroc), _root(excess, 1.0, auroc)


def _root(excess: Any, outside: float, inside: float) -> float:
    """Where ``excess`` changes its sign between ``outside`` and ``inside``; ``outside`` if it does not."""
    if excess(outside) <= 0:
        return outside
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if excess(middle) > 0 else (outside, middle)
    return (outside + inside) / 2


def with_intervals(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Add an interval to each metric if its counts are known, or its limits are among the metrics.

    Args:
        metrics: as from :func:`monai_fedlora.engines.metrics.classification_metrics`, or a part of it.

    Returns:
        ``n``, ``sites``, ``confusion_matrix`` and ``cases_<name>`` unchanged, and every other metric but limits as
        ``{"value": v, "interval_95": [low, high] or None}``.
    """
    confusion = metrics.get("confusion_matrix") or []
    recalls = [(row[index], sum(row)) for index, row in enumerate(confusion)]
    known = [pair for pair in recalls if pair[1]]
    total = sum(count for _, count in recalls)
    binary = len(confusion) == 2
    intervals: dict[str, Interval] = {}
    if total:
        intervals["accuracy"] = wilson(sum(hits for hits, _ in recalls), total)
        intervals["balanced_accuracy"] = mean_of_proportions(known)
        if not binary:
            intervals["sensitivity"] = mean_of_proportions(known)
    if binary and recalls[0][1]:
        intervals["specificity"] = wilson(*recalls[0])
    if binary and recalls[1][1]:
        intervals["sensitivity"] = wilson(*recalls[1])
    if len(known) == 2 and binary and metrics.get("auroc") is not None:
        intervals["auroc"] = area(metrics["auroc"], recalls[1][1], recalls[0][1])

    for name in metrics:
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        if low is not None and high is not None:
            intervals[name] = low, high

    def entry(name: str, value: Any) -> dict[str, Any]:
        found = intervals.get(name) if value is not None else None
        return {"value": value, "interval_95": list(found) if found else None}

    limits = {f"{name}{end}" for name in metrics for end in ("_low", "_high")}
    return {
        name: value if name in COUNTS or name.startswith(COUNTED) else entry(name, value)
        for name, value in metrics.items()
        if name not in limits
    }
