"""What is drawn lies where the numbers are, and carries any name."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.rendering import charts
from monai_fedlora.rendering.charts import Estimate, Line, forest_plot, heat_map, line_chart
from monai_fedlora.rendering.site_curves import MEAN, site_curves

WORDS = {"title": "T", "description": "D"}
ODD = ["<script>alert(1)</script>", "_hidden", "$\\frac", "東京", "a\x00b\nc", "\"&'", "x" * 60]


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of what is drawn, as matplotlib has them."""
    from matplotlib.figure import Figure

    found: list[Any] = []

    def keep(plot: Any, **_: Any) -> None:
        found.append(Figure().subplots())
        plot(found[-1])

    monkeypatch.setattr(charts, "draw", keep)
    return found


def texts(svg: str) -> list[str]:
    """Everything written in a drawing, which has to be well-formed."""
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def chart(lines: dict[str, Line], **options: Any) -> Any:
    ticks = {place: str(place) for line in lines.values() for place in line.points}
    return line_chart(lines, **WORDS, ticks=ticks, x_label="x", y_label="y", **options)


def test_whiskers_end_where_the_interval_ends(axes: list[Any]) -> None:
    found = Estimate(value=0.5, low=0.25, high=1.0, marks=(0.4, 0.6))
    forest_plot({"north": [found, None]}, series=["a", "b"], **WORDS, x_label="x", ends=(0.0, 1.0), chance=0.5)
    whiskers = [path.vertices[:, 0].tolist() for each in axes[0].collections for path in each.get_paths()]
    assert [0.25, 1.0] in whiskers
    marks = [each.get_offsets().tolist() for each in axes[0].collections]
    assert [[0.4, -0.13], [0.6, -0.13]] in marks and [[0.5, -0.13]] in marks


def test_a_line_has_a_gap_where_a_value_is_missing(axes: list[Any]) -> None:
    chart({"a": Line(points={0: 0.5, 2: 0.75}), "b": Line(points={0: 0.1, 1: 0.2, 2: 0.3})}, reference={0: 0.2})
    drawn = [line.get_xydata().tolist() for line in axes[0].lines]
    assert drawn[0][0] == [0.0, 0.5] and drawn[0][1][1] != drawn[0][1][1]
    assert drawn[1] == [[0.0, 0.1], [1.0, 0.2], [2.0, 0.3]]
    assert [0.0, 0.2] in drawn[-1]


def test_an_axis_of_many_rounds_has_few_labels(axes: list[Any]) -> None:
    chart({"a": Line(points=dict.fromkeys(range(200), 0.5))})
    assert len(axes[0].get_xticks()) <= 12


def test_nothing_is_drawn_of_nothing() -> None:
    assert chart({"a": Line(points={})}) is None
    assert forest_plot({"a": [None]}, series=["s"], **WORDS, x_label="x") is None
    assert heat_map({"a": [None]}, columns=["c"], **WORDS, label="l") is None
    assert site_curves({}, sites=["a"], title="T", y_label="y") is None


def test_a_heat_map_has_its_numbers_and_leaves_cells_empty() -> None:
    figure = heat_map({"a": [0.25, None], "b": [0.5, 0.75]}, columns=["c\n3 cases", "d"], **WORDS, label="l")
    assert figure is not None
    found = texts(figure.svg)
    assert {"0.25", "0.50", "0.75", "a", "b", "c", "3 cases", "d"} <= set(found)


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, 0.0])
def test_any_finite_number_can_be_drawn(value: float) -> None:
    assert chart({"a": Line(points={0: value, 1: 0.5})}) is not None


@pytest.mark.parametrize("name", ODD)
def test_any_name_can_be_drawn(name: str) -> None:
    figure = chart({name: Line(points={0: 0.5, 1: 0.6})})
    shown = " ".join(name.replace("\x00", "\ufffd").split())
    assert (shown if len(shown) <= 28 else shown[:27] + "…") in texts(figure.svg)
    assert "<script" not in figure.svg


@settings(max_examples=5, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=3, unique=True))
def test_every_name_gives_a_drawing_that_can_be_read(names: list[str]) -> None:
    rows = {name: [Estimate(value=0.5, low=0.4, high=0.6)] for name in names}
    figure = forest_plot(rows, series=["s"], title=names[0], description=names[-1], x_label="x")
    assert figure is not None
    assert len(texts(figure.svg)) >= len(list(filter(str.strip, names)))


def test_the_drawing_says_itself_in_words_and_asks_for_nothing() -> None:
    figure = chart({"a": Line(points={0: 0.5})})
    root = ElementTree.fromstring(figure.svg)
    assert [node.text for node in list(root)[:2]] == ["T", "D"]
    assert not re.search(r"<(script|image|foreignObject)|href=\"[^#]| on\w+=", figure.svg)
    assert figure._repr_svg_() == figure.svg
    assert figure.source.startswith("data:image/svg+xml;base64,")


def test_the_mean_of_sites_is_drawn_and_said(axes: list[Any]) -> None:
    site_curves({0: {"a": 0.25, "b": 0.75}, 1: {"a": 1.0}}, sites=["a", "b"], title="T", y_label="y")
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["a", "b", MEAN]
    assert [0.5, 1.0] in [line.get_ydata().tolist() for line in axes[0].lines]
