"""Whiskers end where the interval ends."""

from __future__ import annotations

import re

import pytest

from monai_fedlora.export.intervals import mean_of_proportions
from monai_fedlora.reporting import figures
from monai_fedlora.reporting.forest import Estimate, forest_plot
from monai_fedlora.reporting.record import parse_record
from tests.reporting.conftest import value


def plot(**rows: list[Estimate | None]) -> str:
    return forest_plot("p", rows, series=["on", "off"], title="T", description="D", x_label="x", chance=0.5)


def test_marks_and_whiskers_lie_where_the_numbers_are() -> None:
    drawn = plot(north=[Estimate(value=0.5, low=0.25, high=1.0), None])
    (whisker,) = re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" stroke="#0072B2"', drawn)
    zero, one = (float(re.search(rf'<text x="([\d.]+)"[^>]*>{tick}</text>', drawn)[1]) for tick in (0, 1))
    assert [(float(x) - zero) / (one - zero) for x in whisker] == pytest.approx([0.25, 1.0], abs=1e-3)


def test_nothing_is_drawn_of_nothing() -> None:
    assert plot(north=[None, None]) == plot() == ""


def test_scores_have_the_intervals_of_their_confusion_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[Estimate | None]] = {}
    monkeypatch.setattr(figures, "forest_plot", lambda name, rows, **rest: drawn.update(rows) or "")
    figures.test_scores(parse_record(value(), "here"))
    low, high = mean_of_proportions([(3, 4), (2, 4)])
    assert drawn
    for estimates in drawn.values():
        assert estimates[1] == Estimate(value=0.5, low=low, high=high)
