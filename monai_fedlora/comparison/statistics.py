"""Summaries of a comparison: means, worst site, spread over seeds, and paired tests with a correction."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.result_rows import NEW, Repetition, Row, by_site_and_seed, chosen
from monai_fedlora.rendering.tables import MISSING, shown
from monai_fedlora.site_report import PERSONAL, SHARED

TIE = 1e-9
"""Difference up to which two means count as equal, because of rounding (ours)."""


@dataclass(frozen=True, kw_only=True)
class Average:
    """Mean and spread of a number over seeds.

    Attributes:
        mean: over seeds.
        spread: standard deviation over seeds (n - 1); None for a single one.
    """

    mean: float
    spread: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A method's results over all sites and seeds. In every mean over sites each site has the same weight.

    Attributes:
        score: the key metric, mean over sites, of the sites' personal models.
        further: the same of the tables' other metrics, over the sites where each is defined.
        worst: the key metric of the worst site of each seed.
        worst_site: the site with the worst mean over seeds; several, separated by commas, where they tie.
        sites: the key metric by site.
        shared: like ``score``, of the shared model at sites that took part; None where the method has none.
        unseen: like ``score``, over the held-out sites, by number of training cases (0: without training).
    """

    method: str
    score: Average | None
    further: Mapping[str, Average | None]
    worst: Average | None
    worst_site: str | None
    sites: Mapping[str, Average]
    shared: Average | None
    unseen: Mapping[int, Average]


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Test of a method against the reference over all (site, seed) pairs.

    Attributes:
        difference: mean of the key metric, method minus reference.
        pairs: number of pairs.
        better, worse: pairs in which the method is better or worse than the reference.
        p: p-value of the two-sided Wilcoxon signed-rank test; pairs without a difference are left out.
        p_holm: the same after Holm's correction for the number of methods.
    """

    method: str
    reference: str
    difference: float
    pairs: int
    better: int
    worse: int
    p: float
    p_holm: float


def written(value: Average | None) -> str:
    """A mean with its spread as text."""
    if value is None:
        return MISSING
    return shown(value.mean) + ("" if value.spread is None else f" ± {value.spread:.3f}")


def average(values: Sequence[float]) -> Average | None:
    """Mean and spread; None for no values."""
    if not values:
        return None
    return Average(mean=statistics.fmean(values), spread=statistics.stdev(values) if len(values) > 1 else None)


def summarise(rows: Sequence[Row], method: str, measures: Measures) -> Summary:
    """Summarise a method's rows."""
    own = chosen(rows, method=method)
    personal = chosen(own, view=PERSONAL)
    values = by_site_and_seed(personal, measures.key)
    sites = {
        site: found
        for site in dict.fromkeys(row.site for row in personal)
        if (found := average([value for (name, _), value in values.items() if name == site]))
    }
    new = chosen(own, view=NEW)
    cases = sorted({row.cases for row in new if row.cases is not None})
    worst = max if measures.lower_is_better else min
    return Summary(
        method=method,
        score=over_sites(personal, measures.key),
        further={name: over_sites(personal, name) for name in measures.further},
        worst=average([worst(found) for found in _by_seed(values).values()]),
        worst_site=", ".join(lowest({site: measures.better(found.mean, 0.0) for site, found in sites.items()})) or None,
        sites=sites,
        shared=over_sites(chosen(own, view=SHARED), measures.key),
        unseen={n: found for n in cases if (found := over_sites(chosen(new, cases=n), measures.key))},
    )


def lowest(values: Mapping[str, float]) -> list[str]:
    """The names with the lowest value; several where they tie."""
    least = min(values.values(), default=0.0)
    return [name for name, value in values.items() if value <= least + TIE]


def over_sites(rows: Iterable[Row], metric: str) -> Average | None:
    """The mean over sites of each seed, averaged over seeds."""
    return average([statistics.fmean(found) for found in _by_seed(by_site_and_seed(rows, metric)).values()])


def _by_seed(values: Mapping[tuple[str, Repetition], float]) -> dict[Repetition, list[float]]:
    seeds: dict[Repetition, list[float]] = defaultdict(list)
    for (_, seed), value in values.items():
        seeds[seed].append(value)
    return seeds


def paired_tests(rows: Sequence[Row], methods: Sequence[str], measures: Measures) -> list[PairedTest]:
    """Test every method against the first one, over the (site, seed) pairs that both have.

    The pairs of a site have the same patients and those of a seed the same initial values. They are not independent,
    therefore the p-values are too small.
    """
    from scipy.stats import wilcoxon
    from statsmodels.stats.multitest import multipletests

    reference, *others = methods
    base = by_site_and_seed(chosen(rows, method=reference, view=PERSONAL), measures.key)
    found: list[tuple[str, list[float], float]] = []
    for method in others:
        values = by_site_and_seed(chosen(rows, method=method, view=PERSONAL), measures.key)
        changes = [round(values[pair] - base[pair], 9) for pair in base if pair in values]  # so that equal changes tie
        if changes:
            found.append((method, changes, float(wilcoxon(changes).pvalue) if any(changes) else 1.0))
    corrected = multipletests([p for _, _, p in found], method="holm")[1] if found else []
    return [
        PairedTest(
            method=method,
            reference=reference,
            difference=statistics.fmean(changes),
            pairs=len(changes),
            better=sum(measures.better(change, 0.0) > 0 for change in changes),
            worse=sum(measures.better(change, 0.0) < 0 for change in changes),
            p=p,
            p_holm=float(p_holm),
        )
        for (method, changes, p), p_holm in zip(found, corrected, strict=True)
    ]


def smallest_p(pairs: int) -> float:
    """The smallest p-value that the two-sided signed-rank test can give with so many pairs."""
    return min(1.0, 2.0 ** (1 - pairs))


def ties(summaries: Sequence[Summary], measures: Measures) -> list[str]:
    """The best method, followed by those whose difference to it is within its spread over seeds or their own.

    Without a spread (one seed) only methods with the same mean tie.
    """
    ranked = sorted(
        (s for s in summaries if s.score), key=lambda s: measures.better(0.0, s.score.mean if s.score else 0.0)
    )
    if not ranked or not ranked[0].score:
        return []
    best = ranked[0].score
    return [
        s.method
        for s in ranked
        if s is ranked[0]
        or (s.score and measures.better(best.mean, s.score.mean) <= max(best.spread or TIE, s.score.spread or TIE))
    ]
