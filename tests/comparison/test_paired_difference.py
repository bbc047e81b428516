"""A difference's interval is that of the textbook's test where there is one, and of drawing patients again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monai_fedlora.comparison.paired_difference import Cell, difference

RNG = np.random.default_rng(0)


def test_one_cell_and_one_run_is_the_paired_t_test() -> None:
    one, other = RNG.random((2, 12))
    found = difference([Cell(weight=1, scores=(one - other)[:, None])])
    expected = stats.ttest_rel(one, other)
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found.value - found.margin, found.value + found.margin) == pytest.approx((low, high))
    assert found.freedom == pytest.approx(11)


def test_two_large_cells_are_welchs_test() -> None:
    one, other = RNG.normal(0, 1, 15), RNG.normal(0, 3, 30)
    cells = [Cell(weight=1, scores=one[:, None]), Cell(weight=-1, scores=other[:, None])]
    expected = stats.ttest_ind(one, other, equal_var=False)
    found = difference(cells)
    assert found.freedom == pytest.approx(min(expected.df, _effective([15, 30])))
    assert abs(found.value / found.error) == pytest.approx(abs(expected.statistic))


def _effective(sizes: list[int]) -> float:
    weights = np.concatenate([np.full(n, 1 / n) for n in sizes])
    return float((weights**2).sum() ** 2 / (weights**4).sum())


def test_the_error_is_that_of_drawing_one_patient_less_again_and_again() -> None:
    sizes, weights = (12, 20, 15), (0.5, 0.3, 0.2)
    scores = [RNG.integers(-1, 2, (n, 1)).astype(float) for n in sizes]
    found = difference([Cell(weight=w, scores=s) for w, s in zip(weights, scores, strict=True)])
    drawn = [
        w * s[RNG.integers(0, n, (20_000, n - 1)), 0].mean(axis=1)
        for w, s, n in zip(weights, scores, sizes, strict=True)
    ]
    assert found.error == pytest.approx(np.std(np.sum(drawn, axis=0)), rel=0.02)


def test_patients_and_runs_are_the_two_factors_of_an_analysis_of_variance() -> None:
    n, runs = 20, 6
    scores = RNG.normal(0, 1, (n, 1)) + RNG.normal(0, 1, (1, runs)) + RNG.normal(0, 1, (n, runs))
    of_patients = runs * scores.mean(axis=1).var(ddof=1)
    of_runs = n * scores.mean(axis=0).var(ddof=1)
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    of_both = (rest**2).sum() / (n - 1) / (runs - 1)
    found = difference([Cell(weight=1, scores=scores)])
    assert found.error**2 == pytest.approx((of_patients + of_runs - of_both) / (n * runs))
    parts = (of_patients**2 / (n - 1) + of_runs**2 / (runs - 1)) / (n * runs) ** 2
    assert found.freedom == pytest.approx(found.error**4 / parts)


def test_the_runs_of_two_methods_are_compared_by_welchs_test() -> None:
    """Where all patients agree, only runs are left, and nothing pairs one method's with the other's."""
    one, other = RNG.normal(0.8, 0.01, 5), RNG.normal(0.7, 0.02, 5)
    cell = Cell(weight=1, scores=np.tile(one, (15, 1)), reference=np.tile(other, (15, 1)))
    expected, found = stats.ttest_ind(one, other, equal_var=False), difference([cell])
    assert found.p == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(expected.df)


def test_runs_that_share_their_luck_are_compared_in_pairs() -> None:
    luck, own = RNG.normal(0, 0.1, 5), RNG.normal(0.01, 0.001, 5)
    cell = Cell(weight=1, scores=np.tile(luck + own, (15, 1)), reference=np.tile(luck, (15, 1)))
    found = difference([cell])
    assert found.p == pytest.approx(stats.ttest_1samp(own, 0).pvalue)


def test_more_runs_of_the_same_answers_are_no_more_patients() -> None:
    scores = RNG.integers(-1, 2, (15, 1)).astype(float)
    once = difference([Cell(weight=1, scores=scores)])
    often = difference([Cell(weight=1, scores=np.repeat(scores, 7, axis=1))])
    assert (often.value, often.error, often.freedom) == pytest.approx((once.value, once.error, once.freedom))


def test_small_cells_have_the_variance_of_their_class_and_then_of_all() -> None:
    large, small, alone = RNG.normal(0, 1, (20, 1)), RNG.normal(0, 1, (3, 1)), np.array([[5.0]])
    of_class = (19 * large.var(ddof=1) + 2 * small.var(ddof=1)) / 21
    cells = [
        Cell(weight=1, scores=large, group="a"),
        Cell(weight=1, scores=small, group="a"),
        Cell(weight=1, scores=alone, group="b"),
    ]
    assert difference(cells[:2]).error ** 2 == pytest.approx(large.var(ddof=1) / 20 + of_class / 3)
    assert difference(cells).error ** 2 == pytest.approx(large.var(ddof=1) / 20 + of_class / 3 + of_class)


def test_patients_alone_in_every_cell_are_measured_by_their_squares() -> None:
    cells = [Cell(weight=0.5, scores=np.array([[value]])) for value in (1.0, -3.0)]
    assert difference(cells).error ** 2 == pytest.approx(2 * 0.25 * (1 + 9) / 2)


def test_cases_of_a_patient_count_in_the_mean_and_the_patient_once_in_the_error() -> None:
    sizes, scores = [1, 3, 2, 1, 4] * 4, RNG.integers(-1, 2, 20).astype(float)
    found = difference([Cell(weight=1, scores=scores[:, None], sizes=sizes)])
    assert found.value == pytest.approx(np.average(scores, weights=sizes))
    equal = difference([Cell(weight=1, scores=scores[:, None], sizes=[2] * 20)])
    assert equal.error == pytest.approx(scores.std(ddof=1) / np.sqrt(20))
    assert found.error > equal.error * np.sqrt(np.var(scores - found.value) / np.var(scores)) * 0.9


def test_where_all_agree_on_a_difference_nothing_tells_how_sure_it_is() -> None:
    found = difference([Cell(weight=1, scores=np.ones((3, 2)))])
    assert found.value == 1
    assert np.isnan([found.error, found.p, found.margin, found.detectable]).all()


def test_where_no_patient_differs_methods_are_equal() -> None:
    found = difference([Cell(weight=1, scores=np.zeros((3, 2)))])
    assert (found.value, found.error, found.p) == (0, 0, 1)


def test_further_axes_are_problems_of_their_own() -> None:
    scores = RNG.normal(0, 1, (2, 9, 3, 4))
    together = difference([Cell(weight=0.5, scores=each, group=str(i)) for i, each in enumerate(scores)])
    for i in range(4):
        alone = difference([Cell(weight=0.5, scores=each[..., i], group=str(j)) for j, each in enumerate(scores)])
        assert together.p[i] == pytest.approx(alone.p)
        assert together.detectable[i] == pytest.approx(alone.detectable)


def test_a_detectable_difference_is_about_2_8_errors() -> None:
    found = difference([Cell(weight=1, scores=RNG.normal(0, 1, (5000, 1)))])
    assert found.detectable / found.error == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-3)
