"""Test patients and runs drawn again, for numbers whose spread has no closed form, such as that of a worst site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.result_rows import Repetition
from monai_fedlora.site_report import PERSONAL

Array = npt.NDArray[np.float64]

DRAWS = 1000
"""How often patients and runs are drawn again (ours)."""
_SEED = 2026
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, kw_only=True)
class CasesTested:
    """What all runs of a method say of the same test cases.

    Attributes:
        cases: what the first of the runs says, a line per case; sorted by site, class, patient and case.
        runs: seed and repeat of each run.
        scores: (cases, runs), see :class:`CaseScore`.
        said: for every run its cases, in the order of ``cases``.
    """

    cases: Sequence[CaseScore]
    runs: Sequence[Repetition]
    scores: Array
    said: Sequence[Sequence[CaseScore]]

    @property
    def sites(self) -> list[str]:
        """Names of the sites, sorted."""
        return sorted({case.site for case in self.cases})

    def at(self, site: str) -> npt.NDArray[np.bool_]:
        """(cases,), which ones are of a site."""
        return np.array([case.site == site for case in self.cases])


@dataclass(frozen=True, eq=False, kw_only=True)
class Draws:
    """Weights of cases and runs; those of the first draw are 1 everywhere, which gives the number itself.

    Attributes:
        cases: (1 + draws, cases).
        runs: (1 + draws, runs), of mean 1.
    """

    cases: Array
    runs: Array

    def mean_over_runs(self, values: Array) -> Array:
        """(1 + draws,) from (1 + draws, runs)."""
        found: Array = (values * self.runs).mean(axis=1)
        return found


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval; None where all draws give the same."""

    value: float
    low: float | None
    high: float | None


def cases_tested(scores: Iterable[CaseScore], *, view: str = PERSONAL) -> dict[str, CasesTested]:
    """The cases of every method. A run that lacks cases of others does not count; cases without a score are left out.

    Args:
        scores: of every run.
        view: of the models that are meant, see :class:`CaseScore`.
    """
    found: dict[str, dict[Repetition, dict[tuple[str, str], CaseScore]]] = defaultdict(lambda: defaultdict(dict))
    for each in scores:
        if each.view == view and each.cases is None:
            found[each.method][each.seed, each.repeat][each.site, each.case] = each
    tables = {}
    for method, runs in found.items():
        everything = {name for run in runs.values() for name in run}
        whole = {run: cases for run, cases in runs.items() if everything <= cases.keys()}
        known = [name for name in everything if all(run[name].score is not None for run in whole.values())]
        if not whole or not known:
            continue
        first = next(iter(whole.values()))
        order = sorted(known, key=lambda name: _place(first[name]))
        said = [[run[name] for name in order] for run in whole.values()]
        tables[method] = CasesTested(
            cases=said[0],
            runs=list(whole),
            scores=np.array([[case.score for case in run] for run in said], dtype=float).T,
            said=said,
        )
    return tables


def draws(tested: CasesTested, *, by_class: bool, number: int = DRAWS) -> Draws:
    """Draw patients with all their cases within site and class, and runs; the same ones in every call.

    Of n patients n - 1 are drawn, and so of runs, which gives the variance its unbiased size (Rao and Wu, JASA
    83:231-241, 1988). The only patient of a class at a site, and a single run, are in every draw.

    Args:
        tested: the cases.
        by_class: whether patients are drawn within classes, and not within sites alone.
        number: of draws.
    """
    rng = np.random.default_rng(_SEED)
    patients: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, case in enumerate(tested.cases):
        patients[case.site, case.label if by_class else ""][case.patient].append(place)
    weights = np.ones((1 + number, len(tested.cases)))
    for members in patients.values():
        counts = _weights(rng, len(members), number)
        for column, places in enumerate(members.values()):
            weights[1:, places] = counts[:, column, None]
    runs = np.ones((1 + number, len(tested.runs)))
    runs[1:] = _weights(rng, len(tested.runs), number)
    return Draws(cases=weights, runs=runs)


def estimate(values: Array, *, bounds: tuple[float, float] | None = None) -> Estimate:
    """A number and its interval from its draws.

    The worst of several sites, and a sum of absolute deviations, are further from the truth the noisier they are, and
    once more so in every draw. The interval is therefore moved by the difference between the number and the mean of its
    draws, and reaches 1.96 standard deviations of these to both sides.

    Args:
        values: (1 + draws,), the number itself first.
        bounds: of the number; None for none.
    """
    value, drawn = float(values[0]), values[1:]
    spread = float(drawn.std(ddof=1))
    if not spread > _ROUNDING:
        return Estimate(value=value, low=None, high=None)
    centre = 2 * value - float(drawn.mean())
    low, high = centre - 1.96 * spread, centre + 1.96 * spread
    if bounds is not None:
        low, high = np.clip([low, high], *bounds).tolist()
    return Estimate(value=value, low=low, high=high)


def _weights(rng: np.random.Generator, n: int, number: int) -> Array:
    drawn = max(n - 1, 1)
    counts = rng.multinomial(drawn, np.full(n, 1 / n), size=number)
    return np.asarray(counts * (n / drawn), dtype=np.float64)


def _place(case: CaseScore) -> tuple[str, ...]:
    return case.site, case.label, case.patient, case.case


def weighted_means(weights: Array, values: npt.NDArray[Any]) -> Array:
    """(draws, runs): means over cases of (cases, runs), with weights (draws, cases)."""
    found: Array = weights @ values / weights.sum(axis=1, keepdims=True)
    return found
