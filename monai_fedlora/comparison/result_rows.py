"""The results of a comparison as a flat list of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.comparison_settings import Run

NEW = "new"
"""View of a held-out site, in addition to those of :mod:`monai_fedlora.site_report`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Metrics of one model on one site's test cases.

    Attributes:
        method, seed: method and seed of the run.
        site: the site of the test cases.
        view: "personal", "shared" or "new".
        cases: number of training cases that a new site used; None for members.
        n: number of test cases.
        values: metrics by name; None where undefined.
    """

    method: str
    seed: int
    site: str
    view: str
    cases: int | None
    n: int
    values: Mapping[str, float | None]


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
        )
        for run, result in results.items()
        for entry in result["metrics"]
    ]


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


def by_site_and_seed(rows: Iterable[Row], metric: str) -> dict[tuple[str, int], float]:
    """A metric by (site, seed), where it is defined."""
    return {(row.site, row.seed): value for row in rows if (value := row.values[metric]) is not None}
