"""Summaries over patients: mean, median and interval of a measure, and Bland-Altman's bias and limits of agreement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

_Z = 1.959963984540054
RESAMPLES = 9999
FEWEST_PATIENTS = 5
"""Patients below which a summary of measured values says too much of each one to leave a site (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverPatients:
    """A measure over patients.

    Attributes:
        n: patients for whom it is defined.
        left_out: patients for whom it is not.
        mean, median: over the n patients.
        low, high: 95 % interval of the mean; None for fewer than two patients.
    """

    n: int
    left_out: int
    mean: float
    median: float
    low: float | None
    high: float | None

    def to_row(self) -> dict[str, float | None]:
        """The attributes by name, for a table."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlandAltman:
    """Agreement of two ways to measure the same quantity (Bland and Altman, Lancet 1986).

    Attributes:
        n: patients.
        bias: mean of the differences.
        low, high: limits of agreement, 1.96 standard deviations of the differences below and above the bias; None for
            fewer than two patients.
        mean_absolute: mean of the absolute differences.
        correlation: Pearson's, between both ways; None if one of them is constant, or for fewer than two patients.
    """

    n: int
    bias: float
    low: float | None
    high: float | None
    mean_absolute: float
    correlation: float | None

    def to_row(self) -> dict[str, float | None]:
        """The attributes by name, for a table."""
        return asdict(self)


def mean_of_known(values: Tensor) -> float | None:
    """The mean of the values that are not NaN; None if all are."""
    known = values[~values.isnan()].tolist()
    return math.fsum(known) / len(known) if known else None


def over_patients(values: Iterable[float | None], *, seed: int = 0) -> OverPatients | None:
    """Summarise a measure; None if it is defined for no patient.

    The interval consists of the 2.5th and the 97.5th percentile of the means of 9,999 samples of the patients, drawn
    with replacement; the same values give the same interval.

    Args:
        values: one for each patient; None where it is undefined.
        seed: of the samples.
    """
    given = list(values)
    defined = [float(value) for value in given if value is not None]
    if not defined:
        return None
    low, high = _interval(defined, seed) if len(defined) > 1 else (None, None)
    return OverPatients(
        n=len(defined),
        left_out=len(given) - len(defined),
        mean=math.fsum(defined) / len(defined),
        median=statistics.median(defined),
        low=low,
        high=high,
    )


def _interval(values: Sequence[float], seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    ordered = np.sort(np.asarray(values))  # so that the order of the patients does not matter
    found = bootstrap(
        (ordered,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(found.low), float(found.high)


def bland_altman(found: Iterable[float | None], truth: Iterable[float | None]) -> BlandAltman | None:
    """Compare measured numbers with those of a reference; None if no patient has both.

    Args:
        found: one for each patient; None where it is undefined.
        truth: the reference, in the same order.
    """
    pairs = [(a, b) for a, b in zip(found, truth, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    ours, theirs = np.array(pairs, dtype=np.float64).T
    differences = ours - theirs
    bias = math.fsum(differences) / len(differences)
    several = len(pairs) > 1
    reach = _Z * float(differences.std(ddof=1)) if several else 0.0
    related = several and ours.std() > 0 and theirs.std() > 0
    return BlandAltman(
        n=len(pairs),
        bias=bias,
        low=bias - reach if several else None,
        high=bias + reach if several else None,
        mean_absolute=math.fsum(np.abs(differences)) / len(differences),
        correlation=float(np.corrcoef(ours, theirs)[0, 1]) if related else None,
    )
