"""The results of a comparison as a flat list of rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import fsum
from statistics import fmean
from typing import Any

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.comparison_settings import Run

NEW = "new"
"""View of a held-out site, in addition to those of :mod:`monai_fedlora.site_report`."""

LIMITED = "limited"
"""View of a member with fewer training cases than it has: its personal model."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Metrics of one model on one site's test cases.

    Attributes:
        method, seed: method and seed of the run.
        site: the site of the test cases.
        view: "personal", "shared", "new" or "limited".
        cases: number of training patients that a new or limited site used; None for others.
        n: number of test cases.
        repeat, fold: of the cross-validation, see :class:`Run`; no fold in a row of all folds of a repeat.
        values: metrics by name; None where undefined.
    """

    method: str
    seed: int
    site: str
    view: str
    cases: int | None
    n: int
    values: Mapping[str, float | None]
    repeat: int | None = None
    fold: int | None = None


def rows(results: Mapping[Run, Any], measures: Measures) -> list[Row]:
    """One row per run, site and view, in the order of the runs."""
    return [
        Row(
            method=run.method,
            seed=run.seed,
            site=entry["site"],
            view=entry["view"],
            cases=entry["cases"],
            n=entry.get("n", 0),
            values={name: entry.get(name) for name in measures.columns},
            repeat=run.repeat,
            fold=run.fold,
        )
        for run, result in results.items()
        for entry in result["metrics"]
    ]


def over_folds(rows: Iterable[Row], scores: Iterable[CaseScore], measures: Measures) -> list[Row]:
    """One row for all folds of a repeat, in place of one for each.

    The key metric is computed from the scores of all test cases together, because a fold may have too few of a class.
    Other metrics are means over the folds where they are defined, weighted by their numbers of test cases.
    """
    folds: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        folds[row.method, row.seed, row.repeat, row.site, row.view, row.cases].append(row)
    tested: dict[tuple[Any, ...], list[CaseScore]] = defaultdict(list)
    for score in scores:
        tested[score.method, score.seed, score.repeat, score.site, score.view, score.cases].append(score)
    return [
        replace(
            found[0],
            fold=None,
            n=sum(row.n for row in found),
            values={name: _weighted(found, name) for name in measures.columns}
            | {measures.key: key_of(tested[model], measures)},
        )
        for model, found in folds.items()
    ]


def key_of(scores: Iterable[CaseScore], measures: Measures) -> float | None:
    """The key metric of test cases: the mean of their scores, or over classes of each one's mean.

    None without a score, and, of classes, with scores of a single one.
    """
    classes: dict[str, list[float]] = defaultdict(list)
    for each in scores:
        if each.score is not None:
            classes[each.label if measures.by_class else ""].append(each.score)
    return fmean(map(fmean, classes.values())) if len(classes) > measures.by_class else None


def _weighted(rows: Iterable[Row], metric: str) -> float | None:
    found = [(value, row.n) for row in rows if (value := row.values[metric]) is not None]
    total = sum(n for _, n in found)
    return sum(value * n for value, n in found) / total if total else None


def chosen(
    rows: Iterable[Row], *, method: str | None = None, view: str | None = None, cases: int | None = None
) -> list[Row]:
    """The rows of a method, of a view and of a number of cases; None stands for any."""
    return [
        row
        for row in rows
        if (method is None or row.method == method)
        and (view is None or row.view == view)
        and (cases is None or row.cases == cases)
    ]


def mean_over_sites(rows: Iterable[Row], metric: str, *, by_cases: bool) -> list[float]:
    """The mean over sites of a metric where it is defined, by repetition.

    Args:
        rows: of one method, view and number of cases.
        metric: its name.
        by_cases: whether sites count by their numbers of test cases; otherwise all alike.
    """
    found: dict[Repetition, list[tuple[float, int]]] = defaultdict(list)
    for row in rows:
        if (value := row.values[metric]) is not None:
            found[row.seed, row.repeat or 0].append((value, row.n))
    if not by_cases:
        return [fmean(value for value, _ in each) for each in found.values()]
    return [fsum(value * n for value, n in each) / sum(n for _, n in each) for each in found.values()]


Repetition = tuple[int, int]
"""Seed and repeat of a cross-validation."""


def by_site_and_seed(rows: Iterable[Row], metric: str) -> dict[tuple[str, Repetition], float]:
    """A metric by site and repetition, where it is defined."""
    return {(row.site, (row.seed, row.repeat or 0)): value for row in rows if (value := row.values[metric]) is not None}
