"""Temperature scaling of a model's logits on the validation cases.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: the logits are divided by the temperature
T > 0 that minimises the negative log-likelihood of held-out cases. The order of the classes does not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.kept_evidence import Evidence

FEWEST_CASES = 10
"""Fewest validation cases for a fit (ours)."""

LOWEST, HIGHEST = 0.1, 10.0
"""Range of temperatures; one beyond it indicates too few or contradictory cases, and is not used (ours)."""

SURE = 3.841458820694124
"""Likelihood-ratio test against T = 1: a temperature is used if twice its gain in log-likelihood on the validation
cases exceeds this 95 % quantile of the chi-squared distribution with one degree of freedom (ours)."""

_DIGITS, _DECIMALS = 3, 3
"""Significant digits of the temperature, and decimals of the statistics (ours). From all digits of a mean over few
patients one could find out which patients of a larger group it was computed from (a subset-sum problem)."""

SOURCE = 'temperature scaling, Guo et al., "On Calibration of Modern Neural Networks", ICML 2017'
_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature and its effect.

    Attributes:
        temperature: divisor of the logits, with three significant digits; 1 if none was fitted.
        reason: why none was fitted; None if one was.
        splits: for "validation" and "test", where known: the number of cases ``n``, and the expected calibration error
            (``ece``) and mean negative log-likelihood (``nll``) ``before`` and ``after``, with three decimals.
    """

    temperature: float
    reason: str | None
    splits: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The entry ``calibration`` of the metadata."""
        return {
            "method": SOURCE,
            "temperature": self.temperature,
            "fitted": self.reason is None,
            "reason": self.reason,
            **{split: dict(values) for split, values in self.splits.items()},
        }


def calibrate(evidence: Evidence) -> Calibration:
    """Fit the temperature to the validation cases; it is 1, with a reason, if that is not possible."""
    temperature, reason = 1.0, evidence.missing
    if reason is None:
        try:
            if "validation" not in evidence.logits:
                raise ExportError("the site has no validation cases")
            temperature = _tested(evidence.logits["validation"], evidence.labels["validation"])
        except ExportError as error:
            reason = str(error)
    splits = {
        split: _rounded(_effect(evidence.logits[split], evidence.labels[split], temperature))
        for split in ("validation", "test")
        if split in evidence.logits
    }
    return Calibration(temperature=temperature, reason=reason, splits=splits)


def _tested(logits: Tensor, labels: Tensor) -> float:
    """The fitted temperature.

    Raises:
        ExportError: it cannot be fitted, or does not differ significantly from 1.
    """
    temperature = float(f"{fit_temperature(logits, labels):.{_DIGITS}g}")
    effect = _effect(logits, labels, temperature)
    if 2 * effect["n"] * (effect["nll"]["before"] - effect["nll"]["after"]) < SURE:
        raise ExportError(
            f"{effect['n']} validation cases do not tell the best temperature, {temperature:.3g}, from 1 "
            "(likelihood-ratio test at 95 %)"
        )
    return temperature


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that minimises the mean negative log-likelihood of softmax(logits / T).

    The negative log-likelihood is convex in 1 / T, so that bisection on the sign of its derivative finds the minimum.

    Args:
        logits: (N, C).
        labels: (N,) class indices.

    Raises:
        ExportError: there are too few cases, or the minimum lies outside the range.
    """
    if len(labels) < FEWEST_CASES:
        raise ExportError(f"the site has {len(labels)} validation cases, fewer than {FEWEST_CASES}")
    values, truth = logits.double(), labels.long()

    def slope(inverse: float) -> float:
        """Derivative of the mean negative log-likelihood by 1 / T."""
        expected = (values.mul(inverse).softmax(dim=1) * values).sum(dim=1)
        return float((expected - values.gather(1, truth[:, None])[:, 0]).mean())

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(low) >= 0:
        raise ExportError(
            f"the best temperature is above {HIGHEST:g}: on the validation cases the model is hardly better than chance"
        )
    if slope(high) <= 0:
        raise ExportError(f"the best temperature is below {LOWEST:g}: the validation cases are too easy to tell one")
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def _effect(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, Any]:
    metrics, losses = [], []
    for divisor in (1.0, temperature):
        scaled = logits.double() / divisor
        metrics.append(classification_metrics(scaled.softmax(dim=1), labels)["ece"])
        losses.append(float(torch.nn.functional.cross_entropy(scaled, labels.long())))
    return {
        "n": len(labels),
        "ece": {"before": metrics[0], "after": metrics[1]},
        "nll": {"before": losses[0], "after": losses[1]},
    }


def _rounded(effect: Mapping[str, Any]) -> dict[str, Any]:
    """The effect rounded to the decimals that a bundle may contain."""
    numbers = {name: effect[name] for name in ("ece", "nll")}
    rounded = {name: {when: round(n, _DECIMALS) for when, n in value.items()} for name, value in numbers.items()}
    return {**effect, **rounded}
