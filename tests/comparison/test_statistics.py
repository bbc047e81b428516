"""Means, spreads and tests are those of their definitions."""

from __future__ import annotations

import itertools
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
    paired_tests,
    smallest_p,
    summarise,
    ties,
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


def exact_p(changes: list[float]) -> float:
    """Two-sided signed-rank p-value by trying every choice of signs."""
    ranks = np.argsort(np.argsort(np.abs(changes))) + 1
    total = ranks.sum()

    def statistic(signs: tuple[int, ...]) -> float:
        positive = sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign > 0)
        return float(min(positive, total - positive))

    observed = statistic(tuple(int(np.sign(change)) for change in changes))
    found = [statistic(signs) for signs in itertools.product((-1, 1), repeat=len(changes))]
    return sum(value <= observed for value in found) / len(found)


@pytest.mark.parametrize("changes", [[0.1, 0.2, 0.3, 0.4, 0.5], [0.3, -0.1, 0.2, 0.05, -0.02, 0.4], [-0.2, 0.1, -0.3]])
def test_the_test_is_the_exact_signed_rank_test(changes: list[float]) -> None:
    base = [0.4] * len(changes)
    both = rows("a", {"north": list(base)}) + rows("b", {"north": [0.4 + change for change in changes]})
    (found,) = paired_tests(both, ["a", "b"], MEASURES)
    assert found.p == pytest.approx(exact_p(changes))
    assert found.p_holm == found.p
    assert found.difference == pytest.approx(statistics.fmean(changes))
    assert (found.pairs, found.better) == (len(changes), sum(change > 0 for change in changes))
    assert (found.method, found.reference) == ("b", "a")


def test_p_values_are_corrected_as_holm_says() -> None:
    base = rows("a", {"north": [0.5] * 6})
    far = rows("far", {"north": [0.5 + 0.01 * (i + 1) for i in range(6)]})  # p = 2 / 2**6
    near = rows("near", {"north": [0.51, 0.52, 0.53, 0.54, 0.55, 0.499]})  # rank 1 is on the other side: p = 4 / 2**6
    same = rows("same", {"north": [0.5] * 6})
    tests = paired_tests([*base, *near, *same, *far], ["a", "near", "same", "far"], MEASURES)
    found = {test.method: test for test in tests}
    p = {name: test.p for name, test in found.items()}
    assert p == pytest.approx({"far": 2 / 64, "near": 4 / 64, "same": 1.0})
    corrected = {name: test.p_holm for name, test in found.items()}
    assert corrected == pytest.approx({"far": 3 * 2 / 64, "near": 2 * 4 / 64, "same": 1.0})
    assert found["same"].better == found["same"].worse == 0


def test_only_pairs_that_both_methods_have_are_tested() -> None:
    both = rows("a", {"north": [0.4, 0.5, None], "south": [0.5]}) + rows("b", {"north": [0.5, 0.7, 0.9], "east": [0.1]})
    (found,) = paired_tests(both, ["a", "b"], MEASURES)
    assert found.pairs == 2
    assert found.difference == pytest.approx(0.15)
    assert paired_tests(rows("a", TABLE), ["a", "b"], MEASURES) == []
    assert paired_tests(rows("a", TABLE), ["a"], MEASURES) == []


@pytest.mark.parametrize("pairs", [3, 5, 8])
def test_the_smallest_p_is_that_of_differences_of_one_sign(pairs: int) -> None:
    assert smallest_p(pairs) == pytest.approx(exact_p([0.1 * (i + 1) for i in range(pairs)]))


def summary(method: str, mean: float | None, spread: float | None) -> Summary:
    score = None if mean is None else Average(mean=mean, spread=spread)
    none = {"further": {}, "worst": None, "worst_site": None, "sites": {}, "shared": None, "unseen": {}}
    return Summary(method=method, score=score, **none)  # type: ignore[arg-type]


def test_ties_are_within_the_larger_spread_of_the_two() -> None:
    found = [summary("b", 0.7, 0.01), summary("best", 0.8, 0.05), summary("a", 0.76, 0.01), summary("c", 0.6, 0.25)]
    assert ties([*found, summary("none", None, None)], MEASURES) == ["best", "a", "c"]
    assert ties([summary("b", 0.7, None), summary("best", 0.8, None)], MEASURES) == ["best"]
    assert ties([summary("none", None, None)], MEASURES) == []


def test_of_errors_the_smaller_is_the_better() -> None:
    def errors(method: str, table: dict[str, list[float | None]]) -> list[Row]:
        names = (ERRORS.key, f"{ERRORS.key}_EF")
        return [replace(each, values=dict.fromkeys(names, each.values["auroc"])) for each in rows(method, table)]

    good = errors("good", {"north": [4.0, 6.0], "south": [8.0, 10.0]})
    bad = errors("bad", {"north": [12.0, 14.0], "south": [9.0, 16.0]})
    found = summarise(good, "good", ERRORS)
    assert found.worst == Average(mean=4.5, spread=pytest.approx(statistics.stdev([4.0, 5.0])))
    assert found.worst_site == "south"
    assert found.further[f"{ERRORS.key}_EF"] == found.score
    (test,) = paired_tests([*good, *bad], ["bad", "good"], ERRORS)
    assert (test.better, test.worse, test.difference) == (4, 0, pytest.approx(-2.875))
    several = [summary("bad", 6.0, 0.1), summary("near", 3.1, 0.2), summary("best", 3.0, 0.1)]
    assert ties(several, ERRORS) == ["best", "near"]
