from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.measures.agreement import bland_altman, over_patients


def test_mean_median_and_interval_equal_a_plain_bootstrap() -> None:
    values = np.random.default_rng(4).normal(0.8, 0.1, 60)
    found = over_patients([*values, None, None])
    assert found is not None and (found.n, found.left_out) == (60, 2)
    assert (found.mean, found.median) == pytest.approx((values.mean(), np.median(values)))
    rng = np.random.default_rng(9)
    means = values[rng.integers(0, 60, (20000, 60))].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.002)


def test_the_order_of_patients_changes_nothing() -> None:
    values = [0.9, 0.2, 0.7, 0.71, 0.69]
    assert over_patients(values) == over_patients(values[::-1])


def test_one_patient_has_no_interval_and_none_has_no_summary() -> None:
    alone = over_patients([0.5, None])
    assert alone is not None and alone.to_row() == {
        "n": 1, "left_out": 1, "mean": 0.5, "median": 0.5, "low": None, "high": None
    }  # fmt: skip
    assert over_patients([None]) is None and over_patients([]) is None


def test_equal_values_have_an_interval_of_no_width() -> None:
    same = over_patients([0.5, 0.5, 0.5])
    assert same is not None and (same.low, same.high) == (0.5, 0.5)


def test_bias_and_limits_of_agreement() -> None:
    truth = [100.0, 120.0, 140.0, 160.0]
    found = bland_altman([102.0, 121.0, 145.0, 160.0], truth)
    differences = np.array([2.0, 1.0, 5.0, 0.0])
    assert found is not None and found.n == 4 and found.bias == 2 and found.mean_absolute == 2
    assert (found.low, found.high) == pytest.approx(
        (2 - 1.96 * differences.std(ddof=1), 2 + 1.96 * differences.std(ddof=1)), abs=1e-3
    )
    assert found.correlation == pytest.approx(np.corrcoef(truth, truth + differences)[0, 1])


def test_patients_without_one_of_the_numbers_are_left_out() -> None:
    found = bland_altman([1.0, None, 3.0, 4.0], [2.0, 5.0, None, 3.0])
    assert found is not None and (found.n, found.bias, found.mean_absolute) == (2, 0.0, 1.0)
    assert bland_altman([None], [1.0]) is None
    alone = bland_altman([2.0], [1.0])
    assert alone is not None and (alone.bias, alone.low, alone.correlation) == (1.0, None, None)
    with pytest.raises(ValueError, match="longer"):
        bland_altman([1.0], [1.0, 2.0])
