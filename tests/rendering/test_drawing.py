"""Lines that differ, and names that fit."""

from __future__ import annotations

from typing import Any

from monai_fedlora.rendering.drawing import draw, log_ticks, plain, short, style


def test_no_two_lines_look_alike() -> None:
    assert len({tuple(style(place).items()) for place in range(64)}) == 64


def test_a_logarithmic_axis_is_labelled_within_one_decade() -> None:
    def plot(axes: Any) -> None:
        axes.plot([1, 2], [1500, 4000])
        axes.set_yscale("log")
        log_ticks(axes.yaxis, "B")

    svg = draw(plot, title="T", description="D").svg
    assert ">2 kB<" in svg and "mathdefault" not in svg


def test_names_fit_on_one_line() -> None:
    assert short("a\nb " + "c" * 40) == "a b " + "c" * 23 + "…"
    assert plain("a\x0b\x00") == "a\ufffd\ufffd"
