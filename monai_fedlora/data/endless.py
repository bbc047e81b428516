"""Reading streams of phantoms without end: data sets whose item ``i`` follows from a seed and ``i`` alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler


def stream_loader(
    stream: Dataset[dict[str, Any]], *, batch_size: int, start: int = 0, workers: int = 0, prefetch: int = 2
) -> DataLoader[dict[str, Any]]:
    """Batches of a stream without end, the same ones whatever the number of workers.

    Args:
        stream: what to read; it has an item for any number from 0.
        batch_size: items of a batch.
        start: number of the first item, ``steps * batch_size`` after ``steps`` steps.
        workers: processes that draw; 0 draws in this one.
        prefetch: batches that each worker holds ready.
    """
    return DataLoader(
        stream,
        batch_size=batch_size,
        sampler=_From(start),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # otherwise the loader draws a number of PyTorch's own generator
    )


class OneThread:
    """Compute in one thread of this process, so that sums are added in one order."""

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.threads)


class _From(Sampler[int]):
    """All numbers from a first one."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)
