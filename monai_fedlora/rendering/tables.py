"""Tables of a page, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "n/a"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; its first column names the rows.

    Attributes:
        caption: what it shows.
        head: names of the columns; empty for none.
        rows: of text or numbers.
        text: whether the columns are text, on the left, and not numbers.
        bold: names of the rows whose first cell behind the name stands out.
    """

    caption: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]]
    text: bool = False
    bold: Sequence[str] = ()


def shown(value: float | None, form: str = ".3f") -> str:
    """A number in a form, or that there is none."""
    return MISSING if value is None else format(value, form)


def count(value: int | None) -> str:
    """A whole number, or that there is none."""
    return shown(value, ",")


def plural(number: int, word: str) -> str:
    """A count and what is counted."""
    return f"{number} {word}" + "s" * (number != 1)
