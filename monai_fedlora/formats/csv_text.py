"""Cells of a csv in any encoding and with any separator that spreadsheets write."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from monai_fedlora.errors import DataError

_DELIMITERS = ",;\t"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f]")
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_MISSING = frozenset({"nan", "n/a", "#n/a", "<na>", "null"})
"""What programs write for a missing value, in capitals or not; ``NA`` counts only in capitals."""


def read_cells(path: Path) -> tuple[list[tuple[int, tuple[str, ...]]], tuple[str, ...]]:
    """Read a csv, separated by commas, semicolons or tabs.

    UTF-8 and UTF-16 are read; other text is read as Latin-1 (Windows-1252), with a note. A first line such as
    ``sep=;``, which Excel writes, gives the separator; otherwise it is the one that occurs most often in the header
    outside of quotes. Cells lose surrounding spaces; ``NA``, ``nan``, ``null`` and the like become empty cells.

    Returns:
        The lines with their numbers, from 1, and notes on how they were read.

    Raises:
        DataError: the file is missing, no text, no csv or empty.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    lines: list[tuple[int, tuple[str, ...]]] = []
    place = f"{path}"
    try:
        text, notes = _decoded(path.read_bytes())
        first = text.splitlines()[0] if text.strip() else ""
        named = _SEPARATOR_LINE.fullmatch(first)
        skipped = 1 if named else 0
        stream = io.StringIO(text, newline="")
        if named:
            stream.readline()
        reader = csv.reader(stream, strict=True, delimiter=named[1] if named else _delimiter(first))
        place = f"{path}:{skipped + 1}"
        for cells in reader:
            lines.append((reader.line_num + skipped, tuple(_value(cell.strip()) for cell in cells)))
            place = f"{path}:{reader.line_num + skipped + 1}"
    except (OSError, UnicodeError, csv.Error) as error:
        hint = "; is a quotation mark of this line not closed?" if isinstance(error, csv.Error) else ""
        raise DataError(f"{place} is not readable as csv: {error}{hint}") from error
    if not lines:
        raise DataError(f"{path} is empty")
    return lines, notes


def _decoded(content: bytes) -> tuple[str, tuple[str, ...]]:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding), ()
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if content[first:400:2].count(0) > len(content[first:400:2]) // 2:
            return content.decode(encoding), ()
    try:
        return content.decode("utf-8"), ()
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
        if _NO_TEXT.search(text):
            raise
        return text, ("the csv is not UTF-8 and was read as Latin-1; look at its accents",)


def _delimiter(header: str) -> str:
    plain = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=lambda mark: plain.count(mark))


def _value(cell: str) -> str:
    return "" if cell == "NA" or cell.lower() in _MISSING else cell
