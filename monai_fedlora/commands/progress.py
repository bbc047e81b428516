"""Bars that show how far long work is; lines where there is no terminal, as in the log of a batch job."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

_PAUSE = 30.0
"""Seconds without a line where there is no terminal."""


@contextmanager
def counting_bars(*whats: str) -> Iterator[list[Callable[..., None]]]:
    """Yield, for each of several bars, what is called with how many are done, of how many, and what to say of it.

    A bar is not seen before its first call, and all vanish at the end. The number of all is None where nobody knows it.
    Where standard output is no terminal, a line goes to standard error instead, not more than one in half a minute.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console()
    if not console.is_terminal:
        lines = _Lines()
        yield [partial(lines.say, what) for what in whats]
        return
    columns = *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn()
    said = TextColumn("{task.fields[said]}", markup=False)
    with Progress(*columns, said, transient=True, console=console) as bars:
        tasks = [bars.add_task(what, total=None, visible=False, said="") for what in whats]
        yield [partial(_move, bars, task) for task in tasks]


def _move(bars: Any, task: Any, done: int, total: int | None, said: str = "") -> None:
    bars.update(task, completed=done, total=total, visible=True, said=said)


class _Lines:
    """Lines about several counts, far enough apart in time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()

    def say(self, what: str, done: int, total: int | None, said: str = "") -> None:
        now = self._clock()
        if now - self._last >= _PAUSE:
            self._last = now
            of = "" if total is None else f" of {total}"
            print(f"{what}: {done}{of} {said}".rstrip(), file=sys.stderr, flush=True)
