"""Put kept features of several cases side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor

_memory = threading.local()


def joined(place: int, rows: Sequence[Tensor], *, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Features of a batch on a device, (B, ...), from those of its cases, each (1, ...).

    On a processor the batches of one place lie in the same memory one after the other, unless something else refers to
    it: a page that is asked of the system anew takes longer to get than to fill. To a GPU, what is not there yet goes
    in one copy, from memory that it reads while it computes, and becomes ``dtype`` there.

    Args:
        place: number of the output of the frozen part.
        rows: of the cases, on the device or on the processor.
        device: where the batch is needed.
        dtype: of the batch.
    """
    if device.type == "cpu":
        return _filled(_room((place, dtype), (len(rows), *rows[0].shape[1:])), rows)
    away = [row for row in rows if row.device != device]
    shape, kind = rows[0].shape[1:], reduce(torch.promote_types, (row.dtype for row in rows))
    if away:
        pinned = torch.empty((len(away), *shape), dtype=kind, pin_memory=device.type == "cuda")
        there = _filled(pinned, away).to(device, non_blocking=True)
        if len(away) == len(rows):
            return there.to(dtype)
        moved = iter(there.split(1))
        rows = [row if row.device == device else next(moved) for row in rows]
    batch = torch.empty((len(rows), *shape), dtype=kind, device=device)
    return torch.cat(list(rows), out=batch).to(dtype)  # into a batch that is there; autocast refuses some types else


def _filled(batch: Tensor, rows: Sequence[Tensor]) -> Tensor:
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
