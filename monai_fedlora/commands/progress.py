"""Bars that show how far long work is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def counting_bars(*whats: str) -> Iterator[list[Callable[..., None]]]:
    """Yield, for each of several bars, what is called with how many are done, of how many, and what to say of it.

    A bar is not seen before its first call, and all vanish at the end. The number of all is None where nobody knows it.
    """
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    said = TextColumn("{task.fields[said]}", markup=False)
    with Progress(
        *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), said, transient=True
    ) as bars:
        tasks = [bars.add_task(what, total=None, visible=False, said="") for what in whats]
        yield [partial(_move, bars, task) for task in tasks]


def _move(bars: Any, task: Any, done: int, total: int | None, said: str = "") -> None:
    bars.update(task, completed=done, total=total, visible=True, said=said)
