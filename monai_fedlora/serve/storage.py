"""The private folder of a running server, and the removal of those that crashed servers left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

PREFIX = "monai-fedlora-serve-"


class Storage:
    """A temporary folder that only this user can read.

    It is removed by ``close()``, or when the interpreter ends. It is locked while the process lives, so that the next
    server can find and remove folders of crashed ones. It is made in the system's temporary folder (``TMPDIR``).
    """

    def __init__(self) -> None:
        remove_leftovers()
        descriptor = None
        while descriptor is None:  # another start may remove the folder before it is locked
            self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
            descriptor = _lock(self.root)
        self.close = weakref.finalize(self, _remove, self.root, descriptor)

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def remove_leftovers() -> int:
    """Remove the folders of this user's crashed servers.

    Returns:
        Number of folders that were removed.
    """
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        descriptor = _lock(folder)
        if descriptor is not None:
            _remove(folder, descriptor)
            removed += 1
    return removed


def _remove(folder: Path, descriptor: int) -> None:
    """Remove a folder that this process has locked."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock a folder of this user; None if another process has locked or removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if status.st_uid == os.getuid() and os.path.samestat(os.stat(folder), status):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
