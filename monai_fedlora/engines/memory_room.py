"""How much of the machine's memory kept cases and features may take: one share for all of a process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from monai_fedlora.environment import CACHE_MEMORY
from monai_fedlora.errors import ConfigError

_DEFAULT_SHARE = 0.5
_GROUPS = Path("/sys/fs/cgroup")
"""Where Linux tells a container's limits: the first names of each are those of version 2, the second of version 1."""
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_USED = ("memory.current", "memory/memory.usage_in_bytes")
_DETAILS = ("memory.stat", "memory/memory.stat")


def memory_share() -> float:
    """Share of the memory that is available in which what can be computed again may stay.

    Raises:
        ConfigError: the environment variable is no number from 0 to below 1.
    """
    text = os.environ.get(CACHE_MEMORY, "")
    try:
        share = float(text) if text else _DEFAULT_SHARE
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ConfigError(f"{CACHE_MEMORY} is {text!r}; give a share of the memory below 1, 0 for nothing kept there")
    return share


def room_in_memory(held: int) -> int:
    """Bytes that everything kept in the memory of this process may take.

    Processes that begin one after the other take the share of what the others have left.

    Args:
        held: bytes that it takes already.

    Raises:
        ConfigError: see :func:`memory_share`.
    """
    share = memory_share()
    return int(share * (available_memory() + held)) if share else 0


def available_memory() -> int:
    """Bytes that a process can still have: of the machine, or of the container that it runs in where that has less."""
    found = [int(psutil.virtual_memory().available)]
    for limit, used, details in zip(_LIMITS, _USED, _DETAILS, strict=True):
        with suppress(OSError, ValueError):  # no container, or one without a limit, which is the word max
            taken = int((_GROUPS / used).read_text()) - _reclaimed(_GROUPS / details)
            found.append(int((_GROUPS / limit).read_text()) - taken)
    return max(0, min(found))


def _reclaimed(details: Path) -> int:
    """Bytes of files read before, which the system forgets when a process asks for memory."""
    with suppress(OSError, ValueError):
        for line in details.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0
