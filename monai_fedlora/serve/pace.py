"""Limit how slowly an upload may arrive."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable

from monai_fedlora.serve.refusal import TIMED_OUT, Refused
from monai_fedlora.serve.settings import ServeSettings

SPARED = 5.0
"""Seconds (ours) by which a sender may be late even though others wait for its place."""
_TICK = 1.0
_LATE = "the files stopped arriving, or came too slowly; look at the network and try again"


class Pace:
    """Tracks how late a sender is.

    A sender is late by the time since its last bytes, or by the time that it took longer than at the slowest rate,
    whichever is more.

    Args:
        settings: with the permitted delay and the slowest rate.
        clock: returns seconds.
    """

    def __init__(self, settings: ServeSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._rate, self._clock = settings.stall_seconds, settings.slowest_rate, clock
        self._begin = self._heard = clock()
        self._size = 0
        self._has_ended = False
        self._dropped = ""

    def hear(self, size: int) -> None:
        """Note that bytes arrived."""
        self._size += size
        if size:
            self._heard = self._clock()

    def end(self) -> None:
        """Note that everything has arrived; the sender is never late from now on."""
        self._has_ended = True

    def drop(self, reason: str = _LATE) -> None:
        """Give up the sender: its next :meth:`check` fails."""
        self._dropped = reason

    @property
    def late(self) -> float:
        """Delay of the sender in seconds; negative once everything has arrived."""
        if self._has_ended:
            return -math.inf
        now = self._clock()
        return max(now - self._heard, now - self._begin - self._size / self._rate)

    def check(self) -> None:
        """Check whether the sender is still waited for.

        Raises:
            Refused: it is too late, or was given up.
        """
        if self._dropped or self.late > self._patience:
            raise Refused(TIMED_OUT, self._dropped or _LATE)

    @property
    def tick(self) -> float:
        """Seconds between two checks."""
        return min(_TICK, self._patience / 4)


async def in_time(stream: AsyncIterator[bytes], pace: Pace) -> AsyncIterator[bytes]:
    """Yield the pieces of a stream while its sender is fast enough.

    Raises:
        Refused: it is too slow.
    """
    pieces = stream.__aiter__()
    while True:
        piece = asyncio.ensure_future(anext(pieces, None))
        try:
            while not piece.done():
                await asyncio.wait({piece}, timeout=pace.tick)
                if not piece.done():
                    pace.check()
        except BaseException:
            piece.cancel()
            await asyncio.gather(piece, return_exceptions=True)
            raise
        found = piece.result()
        pace.check()
        if found is None:
            pace.end()
            return
        pace.hear(len(found))
        yield found
