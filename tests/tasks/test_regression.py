"""Regression: the loss over known values, and the errors of an evaluation."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest
import torch

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
    pairs = torch.tensor([[[1.0, 5.0], [2.0, nan]], [[4.0, 0.0], [1.0, 1.0]]], dtype=torch.float64)
    found = regression_metrics(pairs, NAMES)
    assert found["mean_absolute_error"] == pytest.approx((1 + (3 + 1) / 2) / 2)
    assert found["mean_absolute_error_low"] <= found["mean_absolute_error"] <= found["mean_absolute_error_high"]
    assert (found["mean_absolute_error_EF"], found["bias_EF"]) == (2.0, 1.0)
    assert (found["mean_absolute_error_volume"], found["bias_volume"], found["n"]) == (1.0, -1.0, 2)
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
