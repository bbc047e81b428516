"""Unify codes and labels of a table that are spelt in several ways."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import Row

_WHOLE = re.compile(r"([0-9]+)(\.0+)?")
_NO_LEADING_ZERO = re.compile(r"(0|[1-9][0-9]*)(\.0+)?")
_SHORTENED = re.compile(r"[0-9]([.,][0-9]+)?[eE]\+[0-9]+")


def settle_codes(rows: Sequence[Row], column: str) -> list[Row]:
    """Turn codes that a program has written as numbers with a point back into whole ones: ``7.0`` to ``7``.

    Done, with a note, where all codes of the column are whole numbers without leading zeros; otherwise they stay.

    Raises:
        DataError: two codes that are spelt differently may be the same (``7`` and ``007``), or a spreadsheet has
            shortened one (``1.2E+10``).
    """
    texts = {row.cells.get(column, "") for row in rows} - {""}
    if shortened := sorted(text for text in texts if _SHORTENED.fullmatch(text)):
        origin = _origin(rows, column, shortened[0])
        raise DataError(
            f"{origin}: {column} is {shortened[0]}, which a spreadsheet has shortened from a longer number; write the "
            "column as text"
        )
    plain: dict[str, str] = {}
    if all(_NO_LEADING_ZERO.fullmatch(text) for text in texts):
        plain = {text: text.partition(".")[0] for text in texts if "." in text}
    spellings: dict[str, str] = {}
    for text in sorted({plain.get(text, text) for text in texts}):
        other = spellings.setdefault(_code_key(text), text)
        if other != text:
            raise DataError(
                f"{_origin(rows, column, text)}: {column} is {text!r:.80}, and {other!r:.80} in "
                f"{_origin(rows, column, other)}; if they are one, write both alike, otherwise rename one"
            )
    note = f"{column} is written as a number with a point (such as 7.0) and was read as a whole one"
    return [
        _changed(row, column, plain[row.cells[column]], note) if row.cells.get(column) in plain else row for row in rows
    ]


def settle_labels(rows: Sequence[Row], column: str) -> list[Row]:
    """Give labels that differ only in capitals, spaces or ``.0`` their most frequent spelling, with a note."""
    counts = Counter(_whole(row.cells.get(column, "")) for row in rows)
    chosen: dict[str, str] = {}
    for text in sorted(counts, key=lambda text: (-counts[text], text)):
        chosen.setdefault(_label_key(text), text)
    settled = []
    for row in rows:
        text = _whole(row.cells.get(column, ""))
        word = chosen[_label_key(text)]
        if word != text:
            row = _changed(row, column, word, f"{column} {text!r:.80} was counted as {word!r:.80}")
        elif column in row.cells:
            row = replace(row, cells=row.cells | {column: text})
        settled.append(row)
    return settled


def _changed(row: Row, column: str, text: str, note: str) -> Row:
    return replace(row, cells=row.cells | {column: text}, notes=(*row.notes, note))


def _origin(rows: Sequence[Row], column: str, text: str) -> str:
    return next(
        (row.origin for row in rows if row.cells.get(column, "").partition(".0")[0] == text.partition(".0")[0]), ""
    )


def _whole(text: str) -> str:
    match = _WHOLE.fullmatch(text)
    return match[1] if match else text


def _code_key(text: str) -> str:
    match = _WHOLE.fullmatch(text)
    return str(int(match[1])) if match else " ".join(unicodedata.normalize("NFKC", text).split())


def _label_key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()
