"""Whatever a name holds, it is text on the page."""

from __future__ import annotations

import re

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.rendering.documents import _environment, markdown, render
from monai_fedlora.rendering.drawing import Figure
from monai_fedlora.rendering.tables import Table, count, plural, shown
from tests.rendering.reading import Page

ROOM = "monai_fedlora.rendering"
ODD = ["<script>alert(1)</script>", "\" onload='x'", "</style>", "{{ 7*7 }}", "ß–東"]
NAMES = st.text(max_size=30) | st.sampled_from(ODD)


def shown_page(name: str) -> Page:
    environment = _environment(ROOM, is_markdown=False)
    figure = Figure(svg="<svg/>", title=name, description=name)
    found = Table(caption=f"c{name}", head=["h", name], rows=[[name, name]])
    template = environment.from_string(
        '{% extends "page.html" %}{% from "parts.html" import figure, table %}'
        "{% block main %}{{ table(found) }}{{ figure(drawn) }}{{ figure(none) }}<p>{{ title }}</p>{% endblock %}"
    )
    return Page(template.render(title=name, found=found, drawn=figure, none=None))


@given(NAMES)
def test_names_stay_text_in_tables_figures_and_titles(name: str) -> None:
    page = shown_page(name)
    (rows,) = page.tables.values()
    as_read = name.replace("\r\n", "\n").replace("\r", "\n")
    assert [[cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row] for row in rows] == [
        ["h", as_read],
        [as_read, as_read],
    ] or ("\x00" in name)
    page.assert_self_contained()


@given(NAMES)
def test_a_name_in_a_card_makes_no_tag_link_code_or_column(name: str) -> None:
    template = _environment(ROOM, is_markdown=True).from_string("| {{ name }} | {{ [name, name] | join(', ') }} |")
    plain = re.sub(r"\\(.)", "", template.render(name=name)).removeprefix("|").removesuffix("|")
    assert plain.count("|") == 1
    assert not set("<[`\n\r") & set(plain)
    assert re.sub(r"\\(.)", r"\1", str(markdown(name))) == re.sub(r"\s+", " ", name)


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render(ROOM, "page.html")


def test_numbers_and_counts_are_written_the_same_everywhere() -> None:
    assert (shown(None), shown(0.12345), shown(12.0, ",.0f"), count(1234), count(None)) == (
        "n/a", "0.123", "12", "1,234", "n/a",
    )  # fmt: skip
    assert (plural(1, "site"), plural(2, "site")) == ("1 site", "2 sites")
