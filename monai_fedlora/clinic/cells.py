"""Cells of the tables that people open in a spreadsheet: none is a formula, and none steers a terminal."""

from __future__ import annotations

from monai_fedlora.studies.naming import printable

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_GUARD = "'"


def guarded(cell: str) -> str:
    """The cell in one printable line, behind an apostrophe where a spreadsheet would take it for a formula."""
    cell = printable(cell)
    return _GUARD + cell if cell.lstrip().startswith((*_FORMULA, _GUARD)) else cell


def unguarded(cell: str) -> str:
    """What was guarded."""
    return cell.removeprefix(_GUARD)
