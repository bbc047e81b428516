"""Where commands print: a terminal has a width, a pipe and a file have none."""

from __future__ import annotations

import os
import sys
from typing import Any

ENDLESS = 10_000
"""Columns of what is no terminal: nothing is cut or wrapped there."""


def open_console(**options: Any) -> Any:
    """A ``rich.console.Console`` on standard output that cuts nothing off where no person has to scroll.

    Args:
        options: of ``Console``. The variable ``COLUMNS`` sets a width, as everywhere.
    """
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=ENDLESS if piped else None, **options)
