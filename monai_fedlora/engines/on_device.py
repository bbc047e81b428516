"""Features that stay on a device, so that a batch of kept ones is one gather there.

Rows of several cases share blocks of memory: what they take is what was asked of the device, which is bounded, and
forgetting them gives whole blocks back. A batch is gathered with `torch.cat`, one kernel for up to 128 cases, which
needs no list of places on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

_FIRST_BLOCK = 8 * 2**20
_LARGEST_BLOCK = 256 * 2**20
_ALIGNMENT = 16
"""Bytes; kernels read so many at once where a row begins at a multiple of them."""

Row = Sequence[Tensor]
"""What is kept of one case: the parts that a frozen network gave, each (1, ...)."""


class OnDevice:
    """Rows of features on one device, found by a key.

    Args:
        device: where they stay.
        room: asked once, when the first row comes: how many bytes they may take on the device. 0 keeps nothing.
    """

    def __init__(self, device: torch.device, *, room: Callable[[torch.device], int]) -> None:
        self.device = device
        self._room = room
        self._limit: int | None = None
        self._rows: dict[Hashable, Row] = {}
        self._blocks: list[Tensor] = []
        self._free = 0  # bytes at the end of the last block

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
        """Copy a row to the device; return it there, or None where it finds no room and stays where it is."""
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
        self._free, self._limit = 0, None

    def _has_new_block(self, size: int) -> bool:
        """Take a block at least as large as a row, and the larger the more there is already."""
        if self._limit is None:
            self._limit = self._room(self.device)
        left = self._limit - self.nbytes
        if size > left:
            return False
        wanted = max(size, min(max(self.nbytes, _FIRST_BLOCK), _LARGEST_BLOCK))
        self._blocks.append(torch.empty(min(wanted, left), dtype=torch.uint8, device=self.device))
        self._free = len(self._blocks[-1])
        return True


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
