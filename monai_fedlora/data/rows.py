"""Reading a csv so that every fault is named by file and line."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a csv: its cells by column name, stripped, and where it stands."""

    origin: str
    cells: dict[str, str]

    def text(self, column: str) -> str:
        """Return a cell.

        Raises:
            DataError: it is empty or the column does not exist.
        """
        if value := self.cells.get(column, ""):
            return value
        raise DataError(f"{self.origin}: {column} is empty")

    def integer(self, column: str) -> int:
        """Return a whole number; ``12`` and ``12.0`` are both twelve.

        Raises:
            DataError: the cell is empty or something else.
        """
        return whole_number(self.text(column), name=column, origin=self.origin)


def whole_number(text: str, *, name: str, origin: str) -> int:
    """Parse a number of frames, codes and the like, 0 to 999999.

    Raises:
        DataError: ``text`` is not such a number.
    """
    if match := re.fullmatch(r"([0-9]{1,6})(\.0*)?", text):
        return int(match[1])
    raise DataError(f"{origin}: {name} must be a whole number, and is {text!r:.80}")


def read_header_row(path: Path) -> tuple[str, ...]:
    """Return the column names of a csv.

    Raises:
        DataError: the file is missing, not text or empty.
    """
    return tuple(_parse(path)[0][1])


def read_rows(path: Path, *, required: Sequence[str], on_bad: Callable[[str, str], None] | None = None) -> list[Row]:
    """Read a csv with a header line, separated by commas, semicolons or tabs; empty lines are skipped.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        required: columns that must exist.
        on_bad: called with place and fault of every line that is left out because it has another length than the
            header; by default such a line is an error.

    Raises:
        DataError: the file is missing, not text, lacks a column or names one twice, or has a bad line.
    """
    (_, names), *lines = _parse(path)
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(f"{path}:1: the column {twice[0]} occurs twice")
    if missing := [column for column in required if column not in names]:
        raise DataError(f"{path}:1: column {', '.join(missing)} is missing; the columns are {', '.join(names)}")
    rows, bad = [], 0
    for number, cells in lines:
        if not any(cells):
            continue
        if len(cells) == len(names):
            rows.append(Row(f"{path}:{number}", dict(zip(names, cells, strict=True))))
            continue
        bad += 1
        fault = f"{path}:{number}: {len(cells)} cells, but the header has {len(names)}"
        if on_bad is None:
            raise DataError(fault)
        on_bad(f"{path}:{number}", fault)
    if not rows and not bad:
        raise DataError(f"{path} has a header and no patient")
    return rows


def _parse(path: Path) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = next((mark for mark in ",;\t" if mark in first), ",")
            reader = csv.reader(stream, strict=True, delimiter=delimiter)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable csv: {error}") from error
    if not lines:
        raise DataError(f"{path} is empty")
    return lines
