"""A page fits a telephone and a sheet of paper: what is wider scrolls there, and nothing is cut off here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.rendering.charts import Line, line_chart
from monai_fedlora.rendering.documents import _environment
from monai_fedlora.rendering.tables import Table
from tests.browser import chromium

__all__ = ["chromium"]

PAGE = (
    '{% extends "page.html" %}{% from "parts.html" import figure, table %}'
    "{% block main %}{{ table(found) }}{{ figure(drawn) }}{% endblock %}"
)


@pytest.mark.slow
def test_nothing_is_cut_off(chromium: Any, tmp_path: Path) -> None:
    sites = [f"a hospital with a long name {place}" for place in range(8)]
    rows = [[site, *("0.123 / 0.456" for _ in sites)] for site in sites]
    drawn = line_chart(
        {site: Line(points={0: 0.1, 1: 0.9}) for site in sites}, title="T", description="D", ticks={0: "0", 1: "1"},
        x_label="x", y_label="y",
    )  # fmt: skip
    environment = _environment("monai_fedlora.rendering", is_markdown=False)
    found = Table(caption="A caption that is longer than a telephone is wide, by far", head=["site", *sites], rows=rows)
    path = tmp_path / "page.html"
    path.write_text(environment.from_string(PAGE).render(title="Page", found=found, drawn=drawn), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    size = "(name) => document.querySelector(name).getBoundingClientRect().toJSON()"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(size, "table")["width"] > 390
    assert page.evaluate(size, "caption span")["right"] <= 390
    assert page.evaluate(size, "img")["width"] >= 500
    page.set_viewport_size({"width": 680, "height": 960})  # A4 within margins of 15 mm
    page.emulate_media(media="print")
    assert page.evaluate(size, "table")["right"] <= 680
    assert page.evaluate(size, "img")["right"] <= 680
    assert said == []
    page.close()
