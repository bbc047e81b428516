"""The figures of a run show the numbers of its record."""

from __future__ import annotations

from typing import Any

import pytest

from monai_fedlora.exporting.intervals import mean_of_proportions
from monai_fedlora.rendering.charts import Estimate
from monai_fedlora.reporting import run_figures
from monai_fedlora.reporting.record import parse_record
from tests.reporting.conftest import of_numbers, value


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


def test_biases_have_the_limits_of_agreement_of_every_site_that_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(run_figures, "forest_plot", lambda rows, **rest: drawn.update({rest["x_label"]: rows}))
    run_figures.biases(parse_record(of_numbers(), "here"))
    assert drawn == {
        "lv_ef: found minus reference (%)": {
            "north": [Estimate(value=-2.0, low=-9.0, high=5.0), Estimate(value=1.0, low=-6.0, high=8.0)],
            "south": [None, None],
        },
        "wall: found minus reference": {"north": [None, None], "south": [None, None]},
    }


def test_a_number_whose_limits_are_known_has_a_figure() -> None:
    (figure,) = run_figures.biases(parse_record(of_numbers(), "here"))
    assert "Bias of lv_ef" in figure.title and "found minus reference (%)" in figure.svg
