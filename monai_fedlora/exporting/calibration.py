"""Temperature scaling: one number that makes a model's probabilities as sure as its validation cases allow.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: the logits are divided by the T > 0 that
makes the negative log-likelihood of held-out cases smallest. The order of the classes does not change.
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
"""Validation cases below which nothing is fitted (ours)."""

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures beyond these are a sign of too few or of contradictory cases, and are not used (ours)."""

SURE = 3.841458820694124
"""A temperature is used if twice the gain in log-likelihood of the validation cases exceeds this, the 95 % point of the
chi-squared distribution with one degree of freedom (likelihood-ratio test against T = 1; ours)."""

_DIGITS, _DECIMALS = 3, 3
"""Of the temperature, and of what it changes (ours). All digits of a mean over few patients would tell which patients
of a larger group it is of: it would be the answer to a subset-sum problem."""

SOURCE = 'temperature scaling, Guo et al., "On Calibration of Modern Neural Networks", ICML 2017'
_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature, and what it changes.

    Attributes:
        temperature: the logits are divided by it, three digits; 1 where nothing was fitted.
        reason: why nothing was fitted; None where it was.
        splits: for "validation" and "test", where known, the number of cases ``n`` and the calibration error (``ece``)
            and mean negative log-likelihood (``nll``) ``before`` and ``after``, three decimals.
    """

    temperature: float
    reason: str | None
    splits: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """For the metadata."""
        return {
            "method": SOURCE,
            "temperature": self.temperature,
            "fitted": self.reason is None,
            "reason": self.reason,
            **{split: dict(values) for split, values in self.splits.items()},
        }


def calibrate(evidence: Evidence) -> Calibration:
    """Fit the temperature to the validation cases; 1 with the reason where it cannot be."""
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
    """The fitted temperature, if the cases tell it from 1."""
    temperature = float(f"{fit_temperature(logits, labels):.{_DIGITS}g}")
    effect = _effect(logits, labels, temperature)
    if 2 * effect["n"] * (effect["nll"]["before"] - effect["nll"]["after"]) < SURE:
        raise ExportError(
            f"{effect['n']} validation cases do not tell the best temperature, {temperature:.3g}, from 1 "
            "(likelihood-ratio test at 95 %)"
        )
    return temperature


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that makes the mean negative log-likelihood of softmax(logits / T) smallest.

    The likelihood is convex in 1 / T, so that halving the interval of its derivative's sign finds the one minimum.

    Args:
        logits: (N, C).
        labels: (N,) class indices.

    Raises:
        ExportError: there are too few cases, or the minimum lies beyond the range; the message says which.
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
    """What of it may leave."""
    numbers = {name: effect[name] for name in ("ece", "nll")}
    rounded = {name: {when: round(n, _DECIMALS) for when, n in value.items()} for name, value in numbers.items()}
    return {**effect, **rounded}
