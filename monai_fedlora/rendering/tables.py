"""Tables of a page, and the format of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

MISSING = "n/a"


@dataclass(frozen=True, kw_only=True, repr=False)
class Table:
    """A table, which is shown as lines of text; its first column names the rows.

    Attributes:
        caption: the caption.
        head: names of the columns; empty for none.
        rows: rows of text or numbers.
        text: whether columns are text, aligned left, instead of numbers.
        bold: names of the rows whose first cell after the name is bold.
    """

    caption: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]]
    text: bool = False
    bold: Sequence[str] = ()

    def __repr__(self) -> str:
        rows = [[str(cell).replace("\n", " ") for cell in row] for row in (self.head, *self.rows) if row]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = [
            [f"{cell:{'<' if self.text or not place else '>'}{widths[place]}}" for place, cell in enumerate(row)]
            for row in rows
        ]
        return "\n".join(["  ".join(row).rstrip() for row in ([self.caption], *aligned) if row != [""]])


def shown(value: float | None, form: str = ".3f") -> str:
    """A number in a format, or :data:`MISSING`."""
    return MISSING if value is None else format(value, form)


def mean_cell(values: Sequence[float | None]) -> str:
    """The mean of the known values, with their number where that is not all."""
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    return shown(fmean(known)) + (f" ({len(known)} of {len(values)})" if len(known) < len(values) else "")


def count(value: int | None) -> str:
    """A whole number, or :data:`MISSING`."""
    return shown(value, ",")


def plural(number: int, word: str) -> str:
    """A number with a word, such as "1 site" and "2 sites"."""
    return f"{number} {word}" + "s" * (number != 1)
