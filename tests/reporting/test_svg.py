"""Axes with round numbers around every value."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.reporting.svg import Line, line_chart, round_steps


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.543, 0.832, [0.5, 0.6, 0.7, 0.8, 0.9]),
        (-0.1, 1.0, [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0]),
        (3.0, 700.0, [0.0, 200.0, 400.0, 600.0, 800.0]),
    ],
)
def test_steps_are_round(low: float, high: float, steps: list[float]) -> None:
    assert round_steps(low, high) == steps


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_steps_enclose_the_values_evenly(low: float, width: float) -> None:
    steps = round_steps(low, low + width)
    gaps = [after - before for before, after in pairwise(steps)]
    slack = 1e-6 * max(gaps)
    assert steps[0] <= low + slack and steps[-1] >= low + width - slack
    assert 3 <= len(steps) <= 9
    assert max(gaps) == pytest.approx(min(gaps), rel=1e-3)
    mantissa = gaps[0] / 10 ** math.floor(math.log10(gaps[0]) + 1e-6)
    assert min(abs(mantissa - size) for size in (1, 2, 2.5, 5, 10)) < 1e-2


def test_the_title_is_the_caption_that_everybody_sees() -> None:
    chart = line_chart(
        "c", {"a": Line(points={0: 0.1, 1: 0.9})}, title="Loss <b>", description="d", ticks={0: "0", 1: "1"},
        x_label="x", y_label="y",
    )  # fmt: skip
    assert chart.startswith("<figure>")
    assert chart.rstrip().endswith("<figcaption>Loss &lt;b&gt;</figcaption></figure>")
    assert ">0.2<" in chart
