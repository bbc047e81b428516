"""Rows of a csv; errors name file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.errors import DataError
from monai_fedlora.formats.csv_text import read_cells

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a csv: where it is, its cells by column name without surrounding spaces, and notes on reading it."""

    origin: str
    cells: dict[str, str]
    notes: tuple[str, ...] = ()

    def text(self, column: str) -> str:
        """Return a cell.

        Raises:
            DataError: it is empty or the column does not exist.
        """
        if value := self.cells.get(column, ""):
            return value
        raise DataError(f"{self.origin}: {column} is empty (as are NA, nan and null)")

    def integer(self, column: str, *, below: int | None = None) -> int:
        """Return a whole number, see :func:`whole_number`.

        Raises:
            DataError: the cell is empty or not such a number.
        """
        return whole_number(self.text(column), name=column, origin=self.origin, below=below)

    def number(self, column: str) -> float:
        """Return a finite number, written with a point.

        Raises:
            DataError: the cell is empty or not such a number.
        """
        text = self.text(column)
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise DataError(f"{self.origin}: {column} must be a finite number such as 58.3, and is {text!r:.80}")
        return value


def whole_number(text: str, *, name: str, origin: str, below: int | None = None) -> int:
    """Parse a whole number from 0 to 999999, or from 0 to less than ``below``; ``12`` and ``12.0`` are both twelve.

    Raises:
        DataError: ``text`` is not such a number.
    """
    match = re.fullmatch(r"([0-9]{1,6})(\.0*)?", text)
    if match is None:
        raise DataError(f"{origin}: {name} must be a whole number, and is {text!r:.80}")
    number = int(match[1])
    if below is not None and number >= below:
        raise DataError(f"{origin}: {name} {number} is not one of 0 to {below - 1}")
    return number


def read_header_row(path: Path) -> tuple[str, ...]:
    """Return the column names of a csv.

    Raises:
        DataError: the file is missing, not text or empty.
    """
    return read_cells(path)[0][0][1]


def read_rows(path: Path, *, required: Sequence[str], on_bad: Callable[[str, str], None] | None = None) -> list[Row]:
    """Read a csv with a header line, see :func:`~monai_fedlora.formats.csv_text.read_cells`; empty lines are skipped.

    A line may have more or fewer separators at its end than the header, if the cells there are empty and unnamed.

    Args:
        path: the file.
        required: columns that must exist.
        on_bad: called with the place and the fault of every line that is left out because its number of cells differs
            from that of the header; by default such a line is an error.

    Raises:
        DataError: the file is missing, not text, lacks a column or names one twice, or has a bad line.
    """
    ((_, names), *lines), notes = read_cells(path)
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(f"{path}:1: the column {twice[0]} occurs twice")
    if missing := [column for column in required if column not in names]:
        raise DataError(f"{path}:1: column {', '.join(missing)} is missing; the columns are {', '.join(names)}")
    rows, bad = [], 0
    for number, cells in lines:
        if not any(cells):
            continue
        if not any(cells[len(names) :]) and not any(names[len(cells) :]):
            rows.append(Row(f"{path}:{number}", dict(zip(names, cells, strict=False)), notes))
            continue
        bad += 1
        fault = f"{path}:{number}: {len(cells)} cells, but the header has {len(names)}"
        if on_bad is None:
            raise DataError(fault)
        on_bad(f"{path}:{number}", fault)
    if not rows and not bad:
        raise DataError(f"{path} has a header and no patient")
    return rows
