"""Features that stay on a device, so that a batch of kept ones is one gather there.

Rows of several cases share blocks of memory: what they take is what was asked of the device, which is bounded, and
forgetting them gives whole blocks back. A batch is gathered with `torch.cat`, one kernel for up to 128 cases, which
needs no list of places on the device.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Hashable, Sequence
from weakref import WeakSet

import torch
from torch import Tensor

from monai_fedlora.environment import GPU_FEATURES, GPU_PROCESSES
from monai_fedlora.out_of_memory import shortage

_FIRST_BLOCK = 8 * 2**20
_LARGEST_BLOCK = 256 * 2**20
_ALIGNMENT = 16
"""Bytes; kernels read so many at once where a row begins at a multiple of them."""

Row = Sequence[Tensor]
"""What is kept of one case: the parts that a frozen network gave, each (1, ...)."""
_log = logging.getLogger(__name__)
_all: WeakSet[OnDevice] = WeakSet()


def held_on(device: torch.device) -> int:
    """Bytes that all kept features of this process take on a device."""
    return sum(each.nbytes for each in _all if each.device == device)


class OnDevice:
    """Rows of features on one device, found by a key.

    Args:
        device: where they stay.
        room: how many bytes all features of this process may take on the device; 0 keeps nothing. It is asked whenever
            a block is needed, until it has refused one.
    """

    def __init__(self, device: torch.device, *, room: Callable[[torch.device], int]) -> None:
        self.device = device
        self._room = room
        self._is_full = False
        self._rows: dict[Hashable, Row] = {}
        self._blocks: list[Tensor] = []
        self._free = 0  # bytes at the end of the last block
        _all.add(self)

    @property
    def nbytes(self) -> int:
        """What the blocks take, filled or not."""
        return sum(block.nbytes for block in self._blocks)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Hashable) -> Row | None:
        """The row of ``key``, or None."""
        return self._rows.get(key)

    def keep(self, key: Hashable, row: Row) -> Row | None:
        """Copy a row to the device; return it there, or None where it finds no room and stays where it is.

        Where the device has less memory than it said, all rows of this process leave it, and no more are kept there:
        what trains needs the memory more.
        """
        size = sum(_padded(part.nbytes) for part in row)
        if size > self._free and not self._has_new_block(size):
            return None
        block = self._blocks[-1]
        start = len(block) - self._free
        self._free -= size
        kept = []
        for part in row:
            place = block[start : start + part.nbytes].view(part.dtype).view(part.shape)
            kept.append(place.copy_(part, non_blocking=True))
            start += _padded(part.nbytes)
        self._rows[key] = tuple(kept)
        return self._rows[key]

    def clear(self) -> None:
        """Forget all rows, and ask for the room anew when the next one comes."""
        self._rows.clear()
        self._blocks.clear()
        self._free, self._is_full = 0, False

    def _has_new_block(self, size: int) -> bool:
        """Take a block at least as large as a row, and the larger the more there is already."""
        left = 0 if self._is_full else self._left()
        if size > left and not self._is_full and held_on(self.device) > self.nbytes:
            gc.collect()  # an engine that has ended is part of a cycle, and its features stay as long
            left = self._left()
        if size > left:
            self._is_full = True
            return False
        wanted = max(size, min(max(self.nbytes, _FIRST_BLOCK), _LARGEST_BLOCK))
        try:
            self._blocks.append(torch.empty(min(wanted, left), dtype=torch.uint8, device=self.device))
        except Exception as error:
            if shortage(error) is None:
                raise
            self._give_up()
            return False
        self._free = len(self._blocks[-1])
        return True

    def _left(self) -> int:
        return self._room(self.device) - held_on(self.device)

    def _give_up(self) -> None:
        _log.warning(
            "%s has no memory left: kept features of %.2f GB leave it, and are copied there for each batch; set %s to "
            "less, or %s to the number of processes that compute on each GPU",
            self.device,
            held_on(self.device) / 1e9,
            GPU_FEATURES,
            GPU_PROCESSES,
        )
        for each in _all:
            if each.device == self.device:
                each.clear()
                each._is_full = True


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
