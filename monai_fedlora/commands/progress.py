"""Bars that show how far long work is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_fedlora.engines.dataset import CaseDataset


@contextmanager
def epochs_bar(epochs: int, data: Sequence[CaseDataset]) -> Iterator[Callable[[int, float], None]]:
    """Yield what is to be called after each epoch with its number, from 1, and its loss.

    It moves the bar and lets the data sets augment for the next epoch.
    """
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[loss]}"),
    ) as bar:
        task = bar.add_task("epochs", total=epochs, loss="")

        def on_epoch(epoch: int, loss: float) -> None:
            for part in data:
                part.set_epoch(epoch + 1)
            bar.update(task, completed=epoch, loss=f"loss {loss:.4f}")

        yield on_epoch


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with how many are done, and how many there are; the bar vanishes at the end."""
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
