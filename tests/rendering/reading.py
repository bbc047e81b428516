"""Reads a page as a reader does who cannot see it, and pages without figures for tests that look at none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

from monai_fedlora.rendering import drawing

VOID = {"img", "meta"}


@contextmanager
def without_figures() -> Iterator[None]:
    """Let every figure be an empty image; drawing takes most of a page's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_svg", lambda plot, title, description, size: "<svg/>")
        yield


@pytest.fixture
def no_figures() -> Iterator[None]:
    with without_figures():
        yield


class Page(HTMLParser):
    """What a page holds; its tags are closed in order, and its tables have a caption each.

    Attributes:
        tables: rows by caption, each a list of the cells' texts.
        sections: heading above a table, by its caption.
        headings: in order.
        attributes: of all tags, as (tag, name, value).
        scopes: of all heads of rows and columns.
        text: all there is to read, with single spaces.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.sections: dict[str, str] = {}
        self.headings: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = self._said = ""
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(self._said.split())
        self.scopes = [value for tag, name, value in self.attributes if tag == "th" and name == "scope"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            assert self._caption and self._caption not in self.tables
            self.tables[self._caption] = self._rows
            self.sections[self._caption] = self.headings[-1]

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self._said += data
        if {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data
        elif "caption" in self._open:
            self._caption += data
        elif {"h1", "h2"} & set(self._open):
            self.headings[-1] += data

    def table(self, start: str) -> dict[str, list[str]]:
        """Rows of the one table whose caption starts so, by their first cell."""
        (rows,) = (rows for caption, rows in self.tables.items() if caption.startswith(start))
        return {row[0]: row[1:] for row in rows}

    def assert_self_contained(self) -> None:
        """It asks no other machine for anything, runs nothing, and says every image in words."""
        for tag, name, value in self.attributes:
            assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
            assert name not in ("href", "xlink:href", "action", "srcset", "data") and not name.startswith("on")
            if name == "src":
                assert value is not None and value.startswith("data:image/svg+xml;base64,")
            if name == "style" or name == "alt":
                assert value and "url(" not in value
        images = [name for tag, name, _ in self.attributes if tag == "img"]
        assert images.count("alt") == images.count("src")
