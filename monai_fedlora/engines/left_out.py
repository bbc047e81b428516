"""Saying what a cache has no room for, so that nobody wonders why an epoch is as slow as the first one."""

from __future__ import annotations

import logging
from collections.abc import Collection

from monai_fedlora.engines.memory import Memory
from monai_fedlora.engines.store import Store

_log = logging.getLogger(__name__)


def say_left_out(sizes: Collection[int], *, what: str, counted: str, keeper: Memory | Store) -> None:
    """Log how many results found no room, and which settings give more.

    Args:
        sizes: of those without room, in bytes; nothing is said of none.
        what: they are, in the plural.
        counted: of what their number is a part.
        keeper: that had no room.
    """
    if sizes:
        _log.warning(
            "no room for %s (%d %s, %s), which are computed again whenever they are needed, with the same result: %s",
            what,
            len(sizes),
            counted,
            f"{sum(sizes) / 1e6:,.1f} MB",
            keeper.told_room(),
        )
