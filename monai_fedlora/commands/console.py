"""Where commands print: a terminal has a width, a pipe and a file have none."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ENDLESS = 10_000
"""Columns of what is no terminal: nothing is cut or wrapped there."""
_WHOLE = 20
"""Letters of a row's name that are not folded, however narrow a terminal is."""


def open_console() -> Any:
    """A ``rich.console.Console`` on standard output that cuts nothing off where no person has to scroll.

    Texts are shown as they are, whatever they hold. The variable ``COLUMNS`` sets a width, as everywhere.
    """
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=ENDLESS if piped else None, soft_wrap=True, markup=False, highlight=False, emoji=False)


def drawn(
    head: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "", text: int = 1, bold: Sequence[str] = ()
) -> Any:
    """A table for a terminal, in which nothing is cut off and nothing is taken for markup.

    Args:
        head: names of the columns.
        rows: texts or numbers; the first cell names the row.
        title: above it.
        text: how many columns, from the left, are text; where all are, there are lines between them.
        bold: names of the rows that stand out.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    style: dict[str, Any] = {"box": box.SIMPLE, "padding": (0, 1, 0, 0)} if text < len(head) else {}
    table = Table(title=Text(title, no_wrap=False, overflow="fold"), **style)
    for name in head:
        table.add_column(Text(name), justify="left" if len(table.columns) < text else "right", overflow="fold")
    table.columns[0].no_wrap = all(len(str(row[0])) <= _WHOLE for row in rows)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row), style="bold" if row[0] in bold else None)
    return table


def drawn_table(table: Any) -> Any:
    """A table of the public functions, see `drawn`."""
    text = len(table.head) if table.text else 1
    return drawn(table.head, table.rows, title=table.caption, text=text, bold=table.bold)


def pairs(rows: Iterable[Sequence[str]], *, title: str) -> Any:
    """Subjects and what is said of them, a line each, without a frame."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, no_wrap=False, overflow="fold"),
        box=None,
        show_header=False,
        title_justify="left",
        padding=(0, 2, 0, 0),
    )
    for row in rows:
        if not table.columns:
            for place in range(len(row)):
                table.add_column(no_wrap=not place, overflow="fold", style=None if place else "bold")
        table.add_row(*map(Text, row))
    return table
