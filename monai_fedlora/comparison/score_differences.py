"""What the scores of all test cases tell about two methods: at these sites, and about hospitals like them."""

from __future__ import annotations

from collections import defaultdict
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
"""Runs below which nothing is claimed: of one, nobody knows how much of a difference is luck of training, and cells of
few patients would be found different too often."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A difference as tables have it.

    Attributes:
        low, high: 95 % interval; None where nothing tells it.
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

    @property
    def excludes_none(self) -> bool:
        """Whether the interval excludes that there is no difference."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True)
class MethodDifference:
    """A method against another one.

    Attributes:
        difference: of the key metric, method minus reference, mean over the sites that both have scores of, and runs.
        sites, patients, runs: numbers of those that both methods have. A run is a seed with a repeat of a
            cross-validation; one in which a fold is missing does not count.
        left_out: patients without a score in some run, such as a mask without the structure.
        here: about these sites: other patients of them, and other runs; empty below :data:`FEWEST_RUNS`.
        elsewhere: about hospitals like these, which are drawn again instead of patients; without p-values if there are
            fewer than :data:`FEWEST_SITES`, None if there is one, and empty below :data:`FEWEST_RUNS`.
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


class ScoreTable:
    """The scores of a comparison by method, site, class, patient and run.

    Args:
        scores: of every run; those of another view or number of cases are left out.
        measures: of the task; its classes are cells of their own where the key metric is a mean over them.
        view, cases: of the models that are compared, see :class:`CaseScore`.
    """

    def __init__(
        self, scores: Iterable[CaseScore], measures: Measures, *, view: str = PERSONAL, cases: int | None = None
    ) -> None:
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
        units = {unit for tested in (one, other) for run in tested.values() for unit in run if unit[0] in sites}
        runs = [
            run for run in one if units and run in other and units <= one[run].keys() and units <= other[run].keys()
        ]
        if not runs:
            return None
        pairs = {unit: [(_mean(one[run][unit]), _mean(other[run][unit])) for run in runs] for unit in sorted(units)}
        known = {unit: scores for unit, scores in pairs.items() if not np.isnan(scores).any()}
        if not known:
            return None
        cells = _cells(known, {unit: len(one[runs[0]][unit]) for unit in known})
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
            here=_claim(here, runs=len(runs)),
            elsewhere=_of_hospitals(by_site, runs=len(runs)),
        )

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
    pairs: Mapping[_Unit, Sequence[tuple[float, float]]], sizes: Mapping[_Unit, int]
) -> dict[tuple[str, str], Cell]:
    """The patients by site and class; every site has the same weight, and so has every class of a site."""
    members: dict[tuple[str, str], list[_Unit]] = defaultdict(list)
    for unit in pairs:
        members[unit[:2]].append(unit)
    classes: dict[str, int] = defaultdict(int)
    for site, _ in members:
        classes[site] += 1
    return {
        (site, label): Cell(
            weight=1 / len(classes) / classes[site],
            differences=np.array([[one - other for one, other in pairs[unit]] for unit in units]),
            sizes=[sizes[unit] for unit in units],
            group=label,
        )
        for (site, label), units in members.items()
    }


def _by_site(cells: Mapping[tuple[str, str], Cell]) -> dict[str, Array]:
    """The difference at each site by run, with equal weights of its classes."""
    found: dict[str, list[Array]] = defaultdict(list)
    for (site, _), cell in cells.items():
        found[site].append(np.average(cell.differences, axis=0, weights=cell.sizes))
    return {site: np.mean(each, axis=0) for site, each in found.items()}


def _of_hospitals(by_site: Mapping[str, Array], *, runs: int) -> Claim | None:
    if len(by_site) < 2:
        return None
    claim = _claim(difference([Cell(weight=1, differences=np.array(list(by_site.values())))]), runs=runs)
    if len(by_site) >= FEWEST_SITES:
        return claim
    return replace(claim, p=None)


def _claim(found: Difference, *, runs: int) -> Claim:
    if np.isnan(found.error) or runs < FEWEST_RUNS:
        return Claim(low=None, high=None, detectable=None, p=None)
    value, margin = float(found.value), float(found.margin)
    return Claim(low=value - margin, high=value + margin, detectable=float(found.detectable), p=float(found.p))


def _corrected(claims: Sequence[Claim | None]) -> list[Claim | None]:
    """The same claims with p-values after Holm's correction."""
    from statsmodels.stats.multitest import multipletests

    tested = [claim.p for claim in claims if claim and claim.p is not None]
    corrected = iter(multipletests(tested, method="holm")[1] if tested else ())
    return [
        replace(claim, p_holm=float(next(corrected))) if claim and claim.p is not None else claim for claim in claims
    ]
