"""Regression: the loss over known values, and the errors of an evaluation."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from monai_fedlora.errors import DataError
from monai_fedlora.site_report import Report, round_report
from monai_fedlora.tasks.regression import (
    REGRESSION,
    KnownSmoothL1,
    RegressionMetrics,
    ValuesWriter,
    found_and_true,
    regression_metrics,
)

NAMES = ("EF", "volume")
nan = math.nan


def test_unknown_values_take_no_part_in_the_loss() -> None:
    found = torch.tensor([[1.0, 5.0], [3.0, 0.5], [7.0, 7.0]], requires_grad=True)
    loss = KnownSmoothL1()(found, torch.tensor([[1.5, nan], [0.0, 0.0], [nan, nan]]))
    torch.testing.assert_close(loss, torch.tensor([0.125, (2.5 + 0.125) / 2, 0.0]))
    loss.sum().backward()
    assert found.grad is not None and found.grad[0, 1] == 0 and found.grad[2].tolist() == [0, 0]


def test_errors_are_means_over_cases() -> None:
    pairs = torch.tensor([[[1.0, 5.0], [2.0, nan]], *[[[4.0, 0.0], [1.0, 1.0]]] * 5], dtype=torch.float64)
    found = regression_metrics(pairs, NAMES)
    assert found["scaled_error"] == pytest.approx((1 + 5 * (3 + 1) / 2) / 6)
    assert found["scaled_error_low"] <= found["scaled_error"] <= found["scaled_error_high"]
    assert found["mean_absolute_error_EF"] == pytest.approx((1 + 5 * 3) / 6)
    assert found["bias_EF"] == pytest.approx((-1 + 5 * 3) / 6)
    assert (found["mean_absolute_error_volume"], found["bias_volume"], found["n"]) == (1.0, -1.0, 6)
    assert (found["cases_EF"], found["cases_volume"]) == (6, 5)
    parsed = Report.parse(round_report({"test": {"personal": found}}), form=REGRESSION.form(NAMES))
    assert parsed.test is not None and parsed.test["personal"]["bias_volume"] == -1.0
    with pytest.raises(DataError, match="not finite"):
        regression_metrics(torch.full((1, 2, 2), nan), NAMES)


def test_a_smaller_error_is_better() -> None:
    metrics = RegressionMetrics(names=NAMES)
    assert metrics.better(0.1, 0.2) and not metrics.better(0.3, 0.2)


def test_a_csv_has_what_was_found_and_what_is_true(tmp_path) -> None:
    output = [{"pred": torch.tensor([55.25, 120.0]), "label": torch.tensor([60.0, nan])}]
    assert found_and_true(output).shape == (1, 2, 2)
    writer = ValuesWriter(output_dir=tmp_path, names=NAMES, filename="evaluation.csv", labels=True)
    writer._reset(None)  # type: ignore[arg-type]
    writer._collect(SimpleNamespace(state=SimpleNamespace(batch=[{"subject": "p1"}], output=output)))
    writer._write(None)  # type: ignore[arg-type]
    (row,) = csv.DictReader((tmp_path / "evaluation.csv").read_text().splitlines())
    assert row == {"study": "p1", "EF": "55.25", "volume": "120", "EF_truth": "60", "volume_truth": ""}


@pytest.mark.parametrize(
    ("values", "problem"), [([1.0], "1 values"), (["x", "y"], "no numbers"), ([1, math.inf], "NaN")]
)
def test_values_that_do_not_fit_are_refused_with_the_case(values: list[float], problem: str) -> None:
    kind = REGRESSION.collected
    with pytest.raises(DataError, match=rf"north: training case 0.*{problem}"):
        kind.complete(
            kind.read({"values": values}, torch.zeros(1), "north: training case 0"), NAMES, "north: training case 0"
        )


def test_on_a_scale_the_network_gives_standardised_numbers_and_errors_stay_in_units() -> None:
    scale = ((50.0, 15.0), (150.0, 50.0))
    task = REGRESSION.scaled(scale) if REGRESSION.scaled else REGRESSION
    truth = torch.tensor([[35.0, 250.0], [65.0, nan]])
    perfect = torch.tensor([[-1.0, 2.0], [1.0, 7.0]])
    options = {"names": 2, "cases": (), "class_weights": None, "label_smoothing": 0.0, "device": "cpu"}
    loss = task.loss(**options)
    torch.testing.assert_close(loss(perfect, truth), torch.zeros(2))
    found = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(loss(found, truth), KnownSmoothL1()(found, torch.tensor([[-1.0, 2.0], [1.0, nan]])))
    back = [task.postprocessing()({"pred": row})["pred"] for row in perfect]
    torch.testing.assert_close(torch.stack(back), torch.tensor([[35.0, 250.0], [65.0, 500.0]]))
    assert REGRESSION.postprocessing() is None


def test_no_value_outweighs_another_by_its_unit() -> None:
    """Of errors in a scale's usual distances: 15 % and 100 mL are 1 and 2; scores of cases have the same mean."""
    scale = ((50.0, 15.0), (150.0, 50.0))
    task = REGRESSION.scaled(scale) if REGRESSION.scaled else REGRESSION
    output = [
        {"pred": torch.tensor([50.0, 250.0]), "label": torch.tensor([65.0, 150.0])},
        {"pred": torch.tensor([35.0, 100.0]), "label": torch.tensor([50.0, nan])},
    ]
    metrics = task.metrics("scaled_error", NAMES)
    metrics.reset()
    metrics.update(found_and_true(output))
    assert metrics.compute()["scaled_error"] == pytest.approx((1.5 + 1) / 2)
    assert task.scores is not None
    assert [task.scores(each, NAMES)["score"] for each in output] == pytest.approx([1.5, 1])


def test_values_of_files_and_of_arrays_make_the_same_batch() -> None:
    rows = [[58.3, 120.0], [61.0, 140.0]]
    listed = REGRESSION.prepare.target(default_collate([{"values": row} for row in rows]))
    given = REGRESSION.prepare.target(default_collate([{"values": torch.tensor(row)} for row in rows]))
    assert listed is not None and listed.dtype == torch.float32
    torch.testing.assert_close(listed, given)
    assert REGRESSION.prepare.target({"image": torch.zeros(1)}) is None


def test_limits_of_agreement_and_correlation_are_those_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(55, 15, (20, 1))
    found = 0.8 * truth + rng.normal(0, 4, (20, 1))
    metrics = regression_metrics(torch.tensor(np.stack([found, truth], axis=1)), ("EF",))
    differences = (found - truth).ravel()
    assert metrics["agreement_low_EF"] == pytest.approx(differences.mean() - 1.96 * differences.std(ddof=1), rel=1e-4)
    assert metrics["agreement_high_EF"] == pytest.approx(differences.mean() + 1.96 * differences.std(ddof=1), rel=1e-4)
    assert metrics["correlation_EF"] == pytest.approx(np.corrcoef(found.ravel(), truth.ravel())[0, 1])


def test_nothing_is_said_of_a_value_that_fewer_than_five_cases_have() -> None:
    """With a model that always says the same, the bias of one case is its value."""
    pairs = torch.tensor([[[0.0, 0.0], [55.0, float(n) if n < 4 else nan]] for n in range(5)], dtype=torch.float64)
    found = regression_metrics(pairs, NAMES)
    assert found["bias_EF"] == -55
    parts = ("mean_absolute_error", "bias", "agreement_low", "agreement_high", "correlation")
    assert [found[f"{part}_volume"] for part in parts] == [None] * 5
