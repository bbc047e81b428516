"""Cells of csv tables that are safe to open: no spreadsheet formulas, no control characters for a terminal."""

from __future__ import annotations

from monai_fedlora.studies.naming import printable

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_GUARD = "'"


def guarded(cell: str) -> str:
    """The cell as one printable line, with an apostrophe in front where a spreadsheet would take it for a formula."""
    cell = printable(cell)
    return _GUARD + cell if cell.lstrip().startswith((*_FORMULA, _GUARD)) else cell


def unguarded(cell: str) -> str:
    """The cell without the apostrophe of :func:`guarded`."""
    return cell.removeprefix(_GUARD)
