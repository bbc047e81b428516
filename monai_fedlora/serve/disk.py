"""Count the disk space of all studies of a server together, and of each study."""

from __future__ import annotations

import threading

from monai_fedlora.serve.refusal import DISK_FULL, Refused
from monai_fedlora.serve.uploads import size_text


class Disk:
    """The disk space of a server.

    Args:
        limit: bytes of all files of all sessions together: uploaded, unpacked, and results.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

    def take(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            Refused: there is no room for them.
        """
        with self._lock:
            if self._used + size > self._limit:
                raise Refused(
                    DISK_FULL,
                    f"the studies here would fill more than {size_text(self._limit)}; remove some, send this one "
                    "later, or start with a larger --max-disk",
                )
            self._used += size

    def give_back(self, size: int) -> None:
        """Count bytes that were removed."""
        with self._lock:
            self._used -= size


class Share:
    """The part of a server's disk space that one study uses."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._size = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            Refused: there is no room for them.
        """
        with self._lock:
            self._disk.take(size)
            self._size += size

    def give_back(self, size: int | None = None) -> None:
        """Count bytes that were removed; None for all."""
        with self._lock:
            size = self._size if size is None else size
            self._size -= size
            self._disk.give_back(size)
