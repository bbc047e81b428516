"""Summaries of a comparison: means, worst site and spread over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.result_rows import NEW, Repetition, Row, by_site_and_seed, chosen, mean_over_sites
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
    """A method's results over all sites and seeds. In means over sites each has the same weight, or that of its
    cases, see :attr:`Measures.by_cases`.

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
    mean = partial(over_sites, by_cases=measures.by_cases)
    return Summary(
        method=method,
        score=mean(personal, measures.key),
        further={name: mean(personal, name) for name in measures.further},
        worst=average([worst(found) for found in _by_seed(values).values()]),
        worst_site=", ".join(lowest({site: measures.better(found.mean, 0.0) for site, found in sites.items()})) or None,
        sites=sites,
        shared=mean(chosen(own, view=SHARED), measures.key),
        unseen={n: found for n in cases if (found := mean(chosen(new, cases=n), measures.key))},
    )


def lowest(values: Mapping[str, float]) -> list[str]:
    """The names with the lowest value; several where they tie."""
    least = min(values.values(), default=0.0)
    return [name for name, value in values.items() if value <= least + TIE]


def over_sites(rows: Iterable[Row], metric: str, *, by_cases: bool = False) -> Average | None:
    """The mean over sites of each seed, see :func:`mean_over_sites`, averaged over seeds."""
    return average(mean_over_sites(rows, metric, by_cases=by_cases))


def _by_seed(values: Mapping[tuple[str, Repetition], float]) -> dict[Repetition, list[float]]:
    seeds: dict[Repetition, list[float]] = defaultdict(list)
    for (_, seed), value in values.items():
        seeds[seed].append(value)
    return seeds


def ranked(summaries: Sequence[Summary], measures: Measures) -> list[str]:
    """Names of the methods that have a score, the best one first."""
    scores = {summary.method: summary.score.mean for summary in summaries if summary.score}
    return sorted(scores, key=lambda method: measures.better(0.0, scores[method]))
