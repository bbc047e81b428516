"""Means and spreads are those of their definitions."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.result_rows import NEW, Row
from monai_fedlora.comparison.statistics import (
    Average,
    Summary,
    average,
    over_sites,
    ranked,
    summarise,
)
from monai_fedlora.site_report import PERSONAL, SHARED
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.regression import REGRESSION

MEASURES = Measures.of(CLASSIFICATION, ("NOR", "ABN"))
ERRORS = Measures.of(REGRESSION, ("EF",))


def row(
    method: str, site: str, seed: int, value: float | None, *, view: str = PERSONAL, cases: int | None = None
) -> Row:
    values = {"balanced_accuracy": value, "auroc": None if value is None else value / 2}
    return Row(method=method, seed=seed, site=site, view=view, cases=cases, n=10, values=values)


def rows(method: str, table: dict[str, list[float | None]], **more: object) -> list[Row]:
    """``table`` has a list of values over seeds for each site."""
    return [row(method, site, seed, v, **more) for site, values in table.items() for seed, v in enumerate(values)]


TABLE = {"north": [0.6, 0.8], "south": [0.5, 0.9]}


def test_a_summary_is_over_sites_first_and_seeds_then() -> None:
    summary = summarise([*rows("a", TABLE), *rows("b", {"north": [0.1]})], "a", MEASURES)
    assert summary.score == Average(mean=pytest.approx(0.7), spread=pytest.approx(statistics.stdev([0.55, 0.85])))
    assert summary.worst == Average(mean=pytest.approx(0.65), spread=pytest.approx(statistics.stdev([0.5, 0.8])))
    area = summary.further["auroc"]
    assert area is not None
    assert area.mean == pytest.approx(0.35)
    assert summary.worst_site == "north, south"  # their means are equal
    assert summary.sites["south"].mean == pytest.approx(0.7)
    assert summary.shared is None
    assert summary.unseen == {}


def test_the_worst_site_is_the_one_with_the_lowest_mean_over_seeds() -> None:
    assert summarise(rows("a", {"north": [0.1, 0.9], "south": [0.4, 0.5]}), "a", MEASURES).worst_site == "south"


def test_sites_without_a_value_are_left_out() -> None:
    summary = summarise(rows("a", {"north": [0.6, 0.8], "south": [None, 0.4], "east": [None, None]}), "a", MEASURES)
    assert summary.score is not None
    assert summary.score.mean == pytest.approx((0.6 + 0.6) / 2)
    assert list(summary.sites) == ["north", "south"]


def test_views_are_summarised_apart() -> None:
    new = [*rows("a", {"north": [0.3]}, view=NEW, cases=0), *rows("a", {"north": [0.4]}, view=NEW, cases=5)]
    summary = summarise([*rows("a", TABLE), *rows("a", {"north": [0.2]}, view=SHARED), *new], "a", MEASURES)
    assert summary.shared == Average(mean=0.2, spread=None)
    assert summary.unseen == {0: Average(mean=0.3, spread=None), 5: Average(mean=0.4, spread=None)}
    assert summary.score is not None
    assert summary.score.mean == pytest.approx(0.7)


def test_nothing_has_no_average() -> None:
    assert average([]) is None
    summary = summarise([], "a", MEASURES)
    assert (summary.score, summary.worst, summary.worst_site) == (None, None, None)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=5))
def test_the_mean_over_sites_agrees_with_numpy(values: list[list[float]]) -> None:
    table = {f"site-{i}": list(each) for i, each in enumerate(values)}
    found = over_sites(rows("a", table), "balanced_accuracy")
    means = np.mean(values, axis=0)
    assert found is not None
    assert found.mean == pytest.approx(means.mean())
    assert found.spread == pytest.approx(means.std(ddof=1), abs=1e-12)


def test_the_mean_over_sites_counts_cases_where_the_comparison_says_so() -> None:
    table = [replace(each, n=30 if each.site == "south" else 10) for each in rows("a", TABLE)]
    found = summarise(table, "a", replace(MEASURES, by_cases=True))
    assert found.score is not None
    assert found.score.mean == pytest.approx(np.mean([(0.6 + 3 * 0.5) / 4, (0.8 + 3 * 0.9) / 4]))
    assert found.worst == summarise(table, "a", MEASURES).worst


def summary(method: str, mean: float | None, spread: float | None) -> Summary:
    score = None if mean is None else Average(mean=mean, spread=spread)
    none = {"further": {}, "worst": None, "worst_site": None, "sites": {}, "shared": None, "unseen": {}}
    return Summary(method=method, score=score, **none)  # type: ignore[arg-type]


def test_methods_are_ranked_by_their_means() -> None:
    found = [summary("b", 0.7, 0.01), summary("best", 0.8, 0.05), summary("none", None, None), summary("a", 0.76, 0.01)]
    assert ranked(found, MEASURES) == ["best", "a", "b"]
    assert ranked(found, ERRORS) == ["b", "a", "best"]


def test_of_errors_the_smaller_is_the_better() -> None:
    def errors(method: str, table: dict[str, list[float | None]]) -> list[Row]:
        names = (ERRORS.key, *ERRORS.further)
        return [replace(each, values=dict.fromkeys(names, each.values["auroc"])) for each in rows(method, table)]

    good = errors("good", {"north": [4.0, 6.0], "south": [8.0, 10.0]})
    found = summarise(good, "good", ERRORS)
    assert found.worst == Average(mean=4.5, spread=pytest.approx(statistics.stdev([4.0, 5.0])))
    assert found.worst_site == "south"
    assert dict.fromkeys(ERRORS.further, found.score) == found.further
