"""Intervals against published values, closed forms and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.engines.native_results import native_limits
from monai_fedlora.exporting.intervals import (
    METHODS,
    area,
    mean_of_proportions,
    metric_name,
    wilson,
    with_intervals,
)
from monai_fedlora.exporting.model_card import _performance
from monai_fedlora.measures.structures import HEART


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (81, 263), (15, 148), (1, 29), (10, 10), (1, 1)])
def test_wilson_equals_scipy(hits: int, total: int) -> None:
    reference = stats.binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(hits, total) == pytest.approx((reference.low, reference.high), abs=1e-12)


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_mean_of_one_proportion_is_its_own_interval(pair: tuple[int, int]) -> None:
    assert mean_of_proportions([pair]) == pytest.approx(wilson(*pair), abs=1e-9)


@given(
    st.lists(
        st.integers(1, 60).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))),
        min_size=1,
        max_size=5,
    )
)
def test_mean_interval_contains_the_mean_and_has_width(counts: list[tuple[int, int]]) -> None:
    low, high = mean_of_proportions(counts)
    mean = sum(hits / total for hits, total in counts) / len(counts)
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    assert high - low > 0.01


def test_difference_of_two_proportions_from_newcombe() -> None:
    # Newcombe 1998 (doi 10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I), method 10 for
    # 56/70 - 48/80 is 0.0524 to 0.3339; a difference is twice the mean of p and 1 - q, less 1.
    low, high = mean_of_proportions([(56, 70), (32, 80)])
    assert 2 * low - 1 == pytest.approx(0.0524, abs=1e-4)
    assert 2 * high - 1 == pytest.approx(0.3339, abs=1e-4)


def test_balanced_accuracy_interval_covers_as_announced() -> None:
    generator = np.random.default_rng(0)
    truth, totals = (0.9, 0.75), (15, 25)
    hits = [generator.binomial(total, share, size=2000) for share, total in zip(truth, totals, strict=True)]
    inside = 0
    for first, second in zip(*hits, strict=True):
        low, high = mean_of_proportions([(int(first), totals[0]), (int(second), totals[1])])
        inside += low <= sum(truth) / 2 <= high
    assert 0.93 < inside / 2000 < 0.985


def test_area_interval_covers_as_announced() -> None:
    generator = np.random.default_rng(0)
    positives, negatives, shift = 20, 30, 1.2
    true = stats.norm.cdf(shift / np.sqrt(2))
    inside = 0
    for _ in range(800):
        a, b = generator.normal(shift, 1, positives), generator.normal(0, 1, negatives)
        low, high = area(float((a[:, None] > b[None, :]).mean()), positives, negatives)
        inside += low <= true <= high
    assert 0.92 < inside / 800 < 0.99


@given(st.floats(0, 1), st.integers(1, 80), st.integers(1, 80))
def test_area_interval_contains_the_estimate(auroc: float, positives: int, negatives: int) -> None:
    low, high = area(auroc, positives, negatives)
    assert 0 <= low <= auroc + 1e-9
    assert auroc - 1e-9 <= high <= 1
    assert high - low > 1e-3


def test_area_interval_mirrors() -> None:
    low, high = area(0.8, 12, 12)
    assert area(0.2, 12, 12) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_perfect_small_test_set_is_not_certain() -> None:
    metrics = classification_metrics(np.eye(2)[[0, 1, 0, 1]], [0, 1, 0, 1])
    found = with_intervals(metrics)
    for name in METHODS:
        low, high = found[name]["interval_95"]
        assert found[name]["value"] == high == pytest.approx(1.0)
        assert low < 0.8


def test_every_metric_is_kept_and_counts_stay_plain() -> None:
    metrics = classification_metrics(np.full((6, 2), 0.5), [0, 1, 0, 1, 1, 1])
    found = with_intervals(metrics)
    assert found.keys() == metrics.keys()
    assert found["n"] == 6
    assert found["confusion_matrix"] == metrics["confusion_matrix"]
    assert found["mcc"] == {"value": metrics["mcc"], "interval_95": None}


def test_more_than_two_classes_have_no_interval_where_none_is_sound() -> None:
    generator = np.random.default_rng(1)
    found = with_intervals(classification_metrics(generator.dirichlet((1, 1, 1), 30), np.arange(30) % 3))
    assert found["balanced_accuracy"] == found["sensitivity"]
    assert found["specificity"]["interval_95"] is None
    assert found["auroc"]["interval_95"] is None


def test_absent_class_leaves_its_metrics_without_interval() -> None:
    found = with_intervals(classification_metrics(np.full((3, 2), 0.5), [0, 0, 0]))
    assert found["sensitivity"] == {"value": None, "interval_95": None}
    assert found["auroc"] == {"value": None, "interval_95": None}
    assert found["specificity"]["interval_95"] is not None


def test_metrics_without_counts_have_no_interval() -> None:
    assert with_intervals({"accuracy": 0.5}) == {"accuracy": {"value": 0.5, "interval_95": None}}
    assert with_intervals({}) == {}


def test_numbers_of_cases_are_no_metrics() -> None:
    found = with_intervals({"n": 12, "dice": 0.8, "dice_low": 0.7, "dice_high": 0.9, "dice_RV": 0.6, "cases_RV": 4.0})
    assert found["cases_RV"] == 4.0 and found["dice_RV"] == {"value": 0.6, "interval_95": None}
    assert _performance({"personal": found}) == {"metrics": ["dice", "dice_RV"], "with_interval": ["dice"]}


def test_what_is_measured_on_files_has_names_and_units() -> None:
    assert metric_name("native_dice_RV_ED") == "Dice on the files' grid of RV at ED"
    assert metric_name("lv_edv_error") == "mean absolute error of lv_edv, mL"
    assert metric_name("bias_lv_ef") == "bias of lv_ef"
    unnamed = [name for name in native_limits(HEART) if "_" in name and metric_name(name) == name.replace("_", " ")]
    assert unnamed == []
