"""The figures of a run show the numbers of its record."""

from __future__ import annotations

from typing import Any

import pytest

from monai_fedlora.exporting.intervals import mean_of_proportions
from monai_fedlora.rendering.charts import Estimate
from monai_fedlora.reporting import run_figures
from monai_fedlora.reporting.record import parse_record
from tests.reporting.conftest import value


def test_scores_have_the_intervals_of_their_confusion_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[Estimate | None]] = {}
    monkeypatch.setattr(run_figures, "forest_plot", lambda rows, **rest: drawn.update(rows))
    run_figures.test_scores(parse_record(value(), "here"))
    low, high = mean_of_proportions([(3, 4), (2, 4)])
    assert drawn
    for estimates in drawn.values():
        assert estimates[1] == Estimate(value=0.5, low=low, high=high)


def test_curves_have_the_values_of_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(run_figures, "site_curves", lambda found, **rest: drawn.append(found))
    record = parse_record(value(), "here")
    run_figures.losses(record)
    run_figures.agreement(record)
    assert drawn == [
        {1: {"north": 0.75, "south": 0.75}, 2: {"north": 0.5}},
        {1: {"north": -0.375, "south": -0.375}},
    ]
