"""A lock on a folder, for one run at a time; the operating system releases it when the process ends or crashes."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from monai_fedlora.errors import FedLoraError
from monai_fedlora.files import for_the_owner, make_folder

LOCK_NAME = ".lock"
_PATIENCE = 5.0  # ours: seconds in which a process of the same run that was told to end has ended
_log = logging.getLogger("monai_fedlora.lock")


class Busy(FedLoraError):
    """Another process, or another run in this one, uses the folder."""


class FolderLock:
    """A folder that belongs to one process, for as long as this object lives or until :meth:`release`.

    The system releases the lock with the process, so that none is left by a crash; the file stays, and means nothing
    by itself. Where the folder's file system has no locks (some network disks), that is logged as a warning and nothing
    is locked: two runs at once would then spoil each other's files.

    Args:
        folder: it exists; ``.lock`` in it is created for its owner alone.
        shared: whether others in this process may hold it at the same time, as the tasks of one run do.

    Raises:
        Busy: another process holds it, after some seconds of waiting, or this one does and it is not ``shared``.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder = folder.resolve()
        with _guard:
            known = _held.get(self._folder)
            if known is not None and not shared:
                raise Busy(f"{folder} is in use by another run in this process; wait for its end, or give another one")
            self._hold: _Hold | None = known or _Hold(self._folder)
            _held[self._folder] = self._hold

    @property
    def descriptor(self) -> int:
        """The open file; a child process that inherits it holds the folder too."""
        if self._hold is None:
            raise FedLoraError(f"{self._folder} is not held any more")
        return self._hold.descriptor

    def release(self) -> None:
        """Let others in, unless somebody else in this process shares the folder."""
        self._hold = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def in_use(folder: Path) -> bool | None:
    """Whether any process holds a folder; None where nobody ever did, or it cannot be told (no locks, no rights)."""
    with _guard:
        if folder.resolve() in _held:
            return True
    try:
        import fcntl

        with open(folder / LOCK_NAME, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return None
    return False


class _Hold:
    """The locked file of a folder, once per process."""

    def __init__(self, folder: Path) -> None:
        self.descriptor = -1
        path = folder / LOCK_NAME
        while not self._holds(path):
            make_folder(folder)  # who removed the file, as forget does, may have removed the folder too
        os.ftruncate(self.descriptor, 0)
        os.write(self.descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def _holds(self, path: Path) -> bool:
        """Lock the file; False where it was removed meanwhile, so that others would lock another one."""
        self._close()
        self.descriptor = for_the_owner(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        _lock(self.descriptor, path)
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self._close()


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        _log.warning("%s: this system has no locks of this kind; start no second run in this folder", path)
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy(
                    f"{path.parent} is in use by {_holder(path)}, or by a process that it has started; two runs of one "
                    "experiment would spoil each other's private state. Wait for its end or end it, or choose another "
                    "folder or experiment name"
                ) from None
            time.sleep(0.1)
        except OSError as error:
            _log.warning("%s cannot be locked (%s); start no second run in this folder", path, error)
            return


def _holder(path: Path) -> str:
    said = path.read_text(encoding="utf-8", errors="replace")[:200]
    return said if said.startswith("process ") and said.isprintable() else "another process"


_guard = Lock()
_held: WeakValueDictionary[Path, _Hold] = WeakValueDictionary()
