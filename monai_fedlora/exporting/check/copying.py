"""Copy files to a private folder, and hash them while they are copied."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from monai_fedlora.errors import ExportError

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = errno.ENOSPC, errno.EDQUOT


class Readable(Protocol):
    """Anything with a method ``read``."""

    def read(self, size: int, /) -> bytes: ...


def copy_files(root: Path, files: Mapping[str, int], target: Path) -> dict[str, str]:
    """Copy files of a folder without following links inside it.

    Args:
        root: the folder; it may itself be reached through a link.
        files: size in bytes by path, with ``/`` between its parts.
        target: an empty folder that nobody else can write to.

    Returns:
        SHA-256 of the copied bytes by path.

    Raises:
        ExportError: there is no room; or a file is no longer a plain file of that size.
    """
    require_room(sum(files.values()), target)
    found = {}
    with _changing(root), _opened(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as folder:
        for name, size in files.items():
            with _changing(root / name), _beneath(folder, name) as descriptor:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                    raise _Changed
                with os.fdopen(os.dup(descriptor), "rb", buffering=0) as source:
                    found[name] = copy_stream(source, target / name, size)
                    if source.read(1):
                        raise _Changed
    return found


def copy_stream(source: Readable, target: Path, size: int) -> str:
    """Write ``size`` bytes into a new file that only this user can read.

    Returns:
        Their SHA-256.

    Raises:
        ExportError: there is no room.
        EOFError: there are fewer bytes.
    """
    digest = hashlib.sha256()
    with _naming_room(target):
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(target, _NEW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        while size:
            chunk = source.read(min(size, _CHUNK))
            if not chunk:
                raise EOFError("ends early")
            digest.update(chunk)
            _write(stream, chunk, target)
            size -= len(chunk)
        with _naming_room(target):
            stream.flush()
    return digest.hexdigest()


def require_room(size: int, folder: Path) -> None:
    """Check the free disk space before anything is written.

    Raises:
        ExportError: fewer than ``size`` bytes are free where ``folder`` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ExportError(
            f"a copy of the bundle needs {size:,} bytes, and {folder.parent} has {free:,} free; make room there, or "
            "choose another place with TMPDIR"
        )


class _Changed(Exception):
    """A file differs from its listing."""


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    try:
        yield
    except (_Changed, EOFError, OSError) as error:
        raise ExportError(
            f"{path} changed while it was read, or cannot be read ({error or 'another kind or size of file'}); wait "
            "until nobody writes to the bundle, and try again"
        ) from error


@contextmanager
def _beneath(folder: int, name: str) -> Iterator[int]:
    """Descriptor of a file inside an open folder; a link on the way raises an OSError (ELOOP or ENOTDIR)."""
    *parents, last = name.split("/")
    with ExitStack() as stack:
        for parent in parents:
            folder = stack.enter_context(_opened(parent, _DIRECTORY, folder))
        yield stack.enter_context(_opened(last, _FILE, folder))


@contextmanager
def _opened(path: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(stream: IO[Any], chunk: bytes, target: Path) -> None:
    with _naming_room(target):
        stream.write(chunk)


@contextmanager
def _naming_room(target: Path) -> Iterator[None]:
    """Turn an error of writing into one that names the target's folder, not the source."""
    try:
        yield
    except OSError as error:
        reason = "there is no room left" if error.errno in _FULL else error.strerror
        raise ExportError(
            f"the copy of the bundle cannot be written to {target.parent}: {reason}; make room there, or choose "
            "another place with TMPDIR"
        ) from error
