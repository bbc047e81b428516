"""Put kept features of several cases side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

_memory = threading.local()


def joined(place: int, rows: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """Features of a batch, (B, ...), from those of its cases, each (1, ...).

    On a processor the batches of one place lie in the same memory one after the other, unless something else refers to
    it: a page that is asked of the system anew takes longer to get than to fill.

    Args:
        place: number of the output of the frozen part.
        rows: of the cases, on one device.
        dtype: of the batch.
    """
    if rows[0].device.type != "cpu":
        return torch.cat(list(rows)).to(dtype)
    batch = _room((place, dtype), (len(rows), *rows[0].shape[1:]))
    for target, row in zip(batch, rows, strict=True):
        target.copy_(row[0])
    return batch


def _room(place: tuple[int, torch.dtype], shape: tuple[int, ...]) -> Tensor:
    kept: dict[tuple[int, torch.dtype], Tensor] = _memory.__dict__.setdefault("kept", {})
    size = prod(shape)
    if place not in kept or kept[place].numel() < size or _references(kept[place]) > 1:
        kept[place] = torch.empty(size, dtype=place[1])
    return kept[place][:size].view(shape)


def _references(tensor: Tensor) -> int:
    """How many tensors share this one's memory, itself included; of a version of PyTorch that cannot tell, many."""
    count = getattr(torch._C, "_storage_Use_Count", None)
    storage = tensor.untyped_storage()
    return count(storage._cdata) - 1 if count else 2
