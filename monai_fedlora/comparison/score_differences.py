"""What the scores of all test cases tell about methods: at these sites, and about hospitals like them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.paired_difference import Array, Cell, Difference, difference
from monai_fedlora.comparison.result_rows import Repetition
from monai_fedlora.site_report import PERSONAL

FEWEST_SITES = 6
"""Sites below which nothing is claimed of other hospitals: an exact test of signs cannot reach 0.05 with five."""

FEWEST_RUNS = 2
"""Runs below which nothing is claimed of methods, but of the models at hand alone: of one run, nobody knows how much of
a difference is luck of training, and cells of few patients would be found different too often."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A difference, or the mean of one method, as tables have it.

    Attributes:
        low, high: 95 % interval; None where nothing tells it.
        of_models: whether it is about the trained models at hand and other patients, because there is one run: nothing
            tells how the methods would do if they were trained again, so that there is no p.
        detectable: the smallest true difference that such patients and runs show in 80 % of repetitions, see
            :attr:`monai_fedlora.comparison.paired_difference.Difference.detectable`.
        p: two-sided; None where nothing tells it.
        p_holm: the same after Holm's correction for the number of methods.
    """

    low: float | None
    high: float | None
    detectable: float | None
    p: float | None
    p_holm: float | None = None
    of_models: bool = False

    @property
    def excludes_none(self) -> bool:
        """Whether it is about methods, and its interval excludes that there is no difference."""
        if self.of_models or self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class MethodDifference:
    """A method against another one.

    Attributes:
        difference: of the key metric, method minus reference, mean over the sites that both have scores of, and runs.
        sites, patients, runs: numbers of those that both methods have. A run is a seed with a repeat of a
            cross-validation; one in which a fold is missing does not count.
        left_out: patients without a score in some run, such as a mask without the structure.
        here: about these sites: other patients of them, and other runs; below :data:`FEWEST_RUNS` about these models.
        elsewhere: about hospitals like these, which are drawn again instead of patients; without p-values if there are
            fewer than :data:`FEWEST_SITES`, and None if there is one, or fewer runs than :data:`FEWEST_RUNS`.
    """

    method: str
    reference: str
    difference: float
    sites: int
    patients: int
    runs: int
    left_out: int
    here: Claim
    elsewhere: Claim | None


@dataclass(frozen=True, kw_only=True)
class MethodMean:
    """The key metric of a method, mean over sites and runs, with its interval at these sites."""

    method: str
    value: float
    here: Claim


class ScoreTable:
    """The scores of a comparison by method, site, class, patient and run.

    Args:
        scores: of every run; those of another view or number of cases are left out.
        measures: of the task; its classes are cells of their own where the key metric is a mean over them, and a site
            with cases of a single class, which has no such mean, is left out.
        view, cases: of the models that are compared, see :class:`CaseScore`.
    """

    def __init__(
        self, scores: Iterable[CaseScore], measures: Measures, *, view: str = PERSONAL, cases: int | None = None
    ) -> None:
        self._measures = measures
        self._found: dict[str, _Tested] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for each in scores:
            if each.view == view and each.cases == cases:
                unit = each.site, each.label if measures.by_class else "", each.patient
                self._found[each.method][each.seed, each.repeat][unit].append(each.score)

    def between(self, method: str, reference: str) -> MethodDifference | None:
        """Compare two methods; None if they have no run of the same patients."""
        if method not in self._found or reference not in self._found:
            return None
        one, other = self._found[method], self._found[reference]
        sites = _sites(one) & _sites(other)
        units = self._units(
            unit for found in (one, other) for run in found.values() for unit in run if unit[0] in sites
        )
        runs = [
            run for run in one if units and run in other and units <= one[run].keys() and units <= other[run].keys()
        ]
        if not runs:
            return None
        pairs = {unit: [(_mean(one[run][unit]), _mean(other[run][unit])) for run in runs] for unit in sorted(units)}
        known = {unit: scores for unit, scores in pairs.items() if not np.isnan(scores).any()}
        if not known:
            return None
        cells = _cells(known, {unit: len(one[runs[0]][unit]) for unit in known}, by_cases=self._measures.by_cases)
        here = difference(list(cells.values()))
        by_site = _by_site(cells)
        return MethodDifference(
            method=method,
            reference=reference,
            difference=float(here.value),
            sites=len(by_site),
            patients=len(known),
            runs=len(runs),
            left_out=len(units) - len(known),
            here=_claim(here),
            elsewhere=_of_hospitals(by_site) if len(runs) >= FEWEST_RUNS else None,
        )

    def alone(self, method: str) -> MethodMean | None:
        """The mean of a method with its interval, by runs that tested all cases; None without such a run or scores."""
        tested: Mapping[Repetition, Mapping[_Unit, list[float | None]]] = self._found.get(method, {})
        units = self._units(unit for run in tested.values() for unit in run)
        runs = [run for run in tested.values() if units and units <= run.keys()]
        scores = {unit: [(_mean(run[unit]), 0.0) for run in runs] for unit in sorted(units)}
        known = {unit: pairs for unit, pairs in scores.items() if runs and not np.isnan(pairs).any()}
        if not known:
            return None
        cells = _cells(known, {unit: len(runs[0][unit]) for unit in known}, by_cases=self._measures.by_cases)
        found = difference(list(cells.values()))
        return MethodMean(method=method, value=float(found.value), here=_claim(found))

    def _units(self, tested: Iterable[_Unit]) -> set[_Unit]:
        """Those of sites that have a value of the key metric."""
        found = set(tested)
        groups = Counter(site for site, _ in {unit[:2] for unit in found})
        return {unit for unit in found if groups[unit[0]] > self._measures.by_class}

    def against(self, reference: str, methods: Sequence[str]) -> list[MethodDifference]:
        """Compare methods with a reference, with Holm's correction for their number."""
        found = [each for method in methods if (each := self.between(method, reference))]
        here = _corrected([each.here for each in found])
        elsewhere = _corrected([each.elsewhere for each in found])
        return [
            replace(each, here=one or each.here, elsewhere=other)
            for each, one, other in zip(found, here, elsewhere, strict=True)
        ]


_Unit = tuple[str, str, str]
_Tested = defaultdict[Repetition, defaultdict[_Unit, list[float | None]]]


def _sites(tested: _Tested) -> set[str]:
    return {site for run in tested.values() for site, _, _ in run}


def _mean(scores: Sequence[float | None]) -> float:
    """The mean over a patient's cases; NaN if one has no score."""
    return float(np.mean(np.array(scores, dtype=float)))


def _cells(
    pairs: Mapping[_Unit, Sequence[tuple[float, float]]], sizes: Mapping[_Unit, int], *, by_cases: bool
) -> dict[tuple[str, str], Cell]:
    """The patients by site and class; sites have the same weight or that of their cases, classes of a site the same."""
    members: dict[tuple[str, str], list[_Unit]] = defaultdict(list)
    for unit in pairs:
        members[unit[:2]].append(unit)
    classes: dict[str, int] = defaultdict(int)
    for site, _ in members:
        classes[site] += 1
    cases = {site: sum(sizes[unit] for unit in pairs if unit[0] == site) if by_cases else 1 for site in classes}
    total = sum(cases.values())
    return {
        (site, label): Cell(
            weight=cases[site] / total / classes[site],
            scores=np.array([[one for one, _ in pairs[unit]] for unit in units]),
            reference=np.array([[other for _, other in pairs[unit]] for unit in units]),
            sizes=[sizes[unit] for unit in units],
            group=label,
        )
        for (site, label), units in members.items()
    }


def _by_site(cells: Mapping[tuple[str, str], Cell]) -> dict[str, tuple[Array, Array]]:
    """Both methods at each site by run, with equal weights of its classes."""
    found: dict[str, list[Array]] = defaultdict(list)
    for (site, _), cell in cells.items():
        found[site].append(np.average([cell.scores, cell.scores - cell.differences], axis=1, weights=cell.sizes))
    return {site: (one, other) for site, each in found.items() for one, other in [np.mean(each, axis=0)]}


def _of_hospitals(by_site: Mapping[str, tuple[Array, Array]]) -> Claim | None:
    if len(by_site) < 2:
        return None
    scores, reference = (np.array(each) for each in zip(*by_site.values(), strict=True))
    claim = _claim(difference([Cell(weight=1, scores=scores, reference=reference)]))
    if len(by_site) >= FEWEST_SITES:
        return claim
    return replace(claim, p=None)


def _claim(found: Difference) -> Claim:
    single = found.runs < FEWEST_RUNS
    if np.isnan(found.error):
        return Claim(low=None, high=None, detectable=None, p=None, of_models=single)
    value, margin = float(found.value), float(found.margin)
    return Claim(
        low=value - margin,
        high=value + margin,
        detectable=float(found.detectable),
        p=None if single else float(found.p),
        of_models=single,
    )


def _corrected(claims: Sequence[Claim | None]) -> list[Claim | None]:
    """The same claims with p-values after Holm's correction."""
    from statsmodels.stats.multitest import multipletests

    tested = [claim.p for claim in claims if claim and claim.p is not None]
    corrected = iter(multipletests(tested, method="holm")[1] if tested else ())
    return [
        replace(claim, p_holm=float(next(corrected))) if claim and claim.p is not None else claim for claim in claims
    ]
