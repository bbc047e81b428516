"""Saying what a cache has no room for, so that nobody wonders why an epoch is as slow as the first one."""

from __future__ import annotations

import logging
from collections.abc import Collection

from monai_fedlora.engines.memory import Memory
from monai_fedlora.engines.store import Store

_log = logging.getLogger(__name__)


def say_left_out(sizes: Collection[int], *, what: str, keeper: Memory | Store) -> None:
    """Log how many results found no room, and which settings give more.

    Args:
        sizes: of those without room, in bytes; nothing is said of none.
        what: they are, in the plural.
        keeper: that had no room.
    """
    if sizes:
        _log.warning(
            "%d %s, %s, find no room and are computed again whenever they are needed, which costs time alone: %s",
            len(sizes),
            what,
            f"{sum(sizes) / 1e6:,.1f} MB",
            keeper.told_room(),
        )
