"""What is computed from images by frozen transforms and weights, kept on the site's own disk.

Entries are found by a hash of everything they were computed from, so that another image, transform or backbone never
meets them. They can always be computed again: whatever is wrong with an entry or with the disk costs time and nothing
else. The folder holds features of patients and belongs to its owner alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import monai
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import monai_fedlora
from monai_fedlora.data.datalist import check_site_name
from monai_fedlora.data.site import cache_folder
from monai_fedlora.engines.memory import Memory
from monai_fedlora.environment import CACHE_LIMIT
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import make_folder
from monai_fedlora.source_digest import source_digest

_SUFFIX = ".safetensors"
_CHECKSUM = "sha256"
_DEFAULT_LIMIT_GB = 20.0
_DEFAULT_SHARE = 0.5
"""Of what is free on the disk and of what entries take there already: less than the default limit, where it is."""
_ROOM_AFTER_EVICTION = 0.9
_SHARE_BETWEEN_LOOKS = 0.01
"""Of the limit: what a process writes before it looks again at what others have written."""
_CLOCKS_DIFFER = 1.0
"""Seconds by which a file's time may lie behind the clock's."""
_MOST_OPEN = 20_000
"""Entries that stay open in a process, which the system allows about 65,000 of."""
_log = logging.getLogger(__name__)

Entry = Mapping[str, Tensor]


def store_root() -> Path:
    """The folder of all sites' stores on this machine."""
    return cache_folder() / "frozen"


def store_limit() -> int:
    """Bytes that all stores together may take.

    Raises:
        ConfigError: the environment variable is no number of gigabytes.
    """
    text = os.environ.get(CACHE_LIMIT, "")
    if not text:
        return min(int(_DEFAULT_LIMIT_GB * 1e9), int(_DEFAULT_SHARE * _free_or_held(store_root())))
    try:
        limit = float(text)
    except ValueError:
        limit = -1
    if not 0 <= limit < float("inf"):
        raise ConfigError(f"{CACHE_LIMIT} is {text!r}; give a number of gigabytes, 0 for no cache on disk")
    return int(limit * 1e9)


def _free_or_held(root: Path) -> int:
    """Bytes free on the disk of a folder, which need not be there yet, and those of the entries below it."""
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    return shutil.disk_usage(there).free + sum(entry.size for entry in entries(root))


def key_of(*parts: object) -> str:
    """Hash of the texts of what an entry is computed from, and of the code and versions of what computes it."""
    digest = hashlib.blake2b(digest_size=20)
    versions = (monai_fedlora.__version__, monai.__version__, torch.__version__)
    for part in (*versions, source_digest(), *parts):
        text = str(part).encode()
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text)
    return digest.hexdigest()


class Store:
    """Entries of one site.

    Where the limit is reached, entries that nobody has used since this object was made give room, the least recently
    used first. The others stay, and what finds no room then stays in memory, or is computed at every call: in a
    training that asks for the same entries in every epoch, one that made room for another would be gone whenever it is
    asked for.

    Args:
        folder: for this site's entries; created for the owner alone at the first entry.
        limit: bytes for all entries below the folder's parent.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._used = 0
        self._trusted = 0
        self._sound: dict[str, tuple[int, int]] = {}
        self._open: dict[str, Entry] = {}
        self._writable = limit > 0
        self._is_full = False
        self._opened_at = time.time() - _CLOCKS_DIFFER
        self._unwritten = Memory()

    @property
    def left_out(self) -> Mapping[Hashable, int]:
        """Bytes of each entry that found no room, neither on the disk nor in memory."""
        return self._unwritten.left_out

    def recall(self, key: str, make: Callable[[], Entry]) -> Entry:
        """Return the entry of ``key``; if there is no sound one, make it, and keep it where there is room.

        The tensors of an entry on the disk are views of the file, which is read as they are used.
        """
        found = self._unwritten.get(key)
        if found is None:
            found = self._read(key)
        if found is None:
            found = make()
            if not self._write(key, found):
                self._unwritten.keep(key, found)
        return found

    def told_room(self) -> str:
        """What there is room for, in words, with the settings that give more."""
        where = f"all entries below {self.folder.parent} may take {self.limit / 1e6:,.1f} MB"
        return f"{where} ({CACHE_LIMIT}, in gigabytes), and {self._unwritten.told_room()}"

    def __reduce__(self) -> Any:
        return partial(Store, limit=self.limit), (self.folder,)

    def __contains__(self, key: str) -> bool:
        return key in self._unwritten or os.path.isfile(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self.folder}/{key[:2]}/{key}{_SUFFIX}"

    def _read(self, key: str) -> Entry | None:
        path = self._path(key)
        try:
            which = _which(path)
            sound = self._sound.get(key) == which
            if sound and key in self._open:
                return self._open[key]
            self._open.pop(key, None)
            with safe_open(path, framework="pt") as stream:
                checksum = (stream.metadata() or {}).get(_CHECKSUM, "")
                entry = {name: stream.get_tensor(name) for name in stream.keys()}
            if not sound:
                if checksum != _checksum(key, entry):
                    raise ValueError("its content is not what was written")
                self._sound[key] = which
                os.utime(path)
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            self._open.pop(key, None)
            if os.path.exists(path):  # else it was not kept, or another process has just made room
                _log.warning("%s cannot be used (%s) and is computed again", path, error)
            return None
        if len(self._open) < _MOST_OPEN:
            self._open[key] = entry
        return entry

    def _write(self, key: str, entry: Entry) -> bool:
        """Write an entry to the disk, where it has room."""
        if not self._writable or self._is_full:
            return False
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in entry.items()}
        content = save(plain, {_CHECKSUM: _checksum(key, plain)})
        try:
            if not self._has_room(len(content)):
                return False
            path = Path(self._path(key))
            for folder in (self.folder.parent, self.folder, path.parent):
                make_folder(folder)
            self._sound[key] = _replace(path, content)
        except OSError as error:
            self._writable = False
            _log.warning(
                "nothing more is kept in %s (%s); training goes on, keeps in memory what has room there, and computes "
                "the rest again where it needs it",
                self.folder,
                error,
            )
            return False
        self._used += len(content)
        self._trusted -= len(content)
        return True

    def _has_room(self, size: int) -> bool:
        """Whether an entry fits, after others have made room for it."""
        if size > self.limit:
            return False
        if self._trusted < size or self._used + size > self.limit:
            self._used = sum(entry.size for entry in entries(self.folder.parent))
            self._trusted = int(self.limit * _SHARE_BETWEEN_LOOKS)
        if self._used + size <= self.limit:
            return True
        unused = (entry for entry in entries(self.folder.parent) if entry.used_at < self._opened_at)
        for entry in sorted(unused, key=lambda entry: entry.used_at):
            if self._used + size <= self.limit * _ROOM_AFTER_EVICTION:
                break
            entry.path.unlink(missing_ok=True)
            self._open.pop(entry.path.stem, None)
            self._used -= entry.size
        self._is_full = self._used + size > self.limit
        return not self._is_full


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A file of a store.

    Attributes:
        path: where it lies.
        size: in bytes.
        used_at: seconds since the epoch of its last use by a process.
    """

    path: Path
    size: int
    used_at: float


def entries(root: Path) -> Iterator[StoredEntry]:
    """All entries of the stores below a folder, in no order."""
    for path in root.glob(f"*/*/*{_SUFFIX}"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        yield StoredEntry(path, status.st_size, status.st_mtime)


def kept_by_site(site: str | None = None) -> dict[Path, list[StoredEntry]]:
    """All entries on this machine by their site's folder, or those of one site.

    Raises:
        ConfigError: no site has such a name.
    """
    if site:
        check_site_name(site)
    found: dict[Path, list[StoredEntry]] = {}
    for entry in entries(store_root()):
        folder = entry.path.parent.parent
        if site in (None, "", folder.name):
            found.setdefault(folder, []).append(entry)
    return dict(sorted(found.items()))


def _which(path: str | Path | int) -> tuple[int, int]:
    """What tells a file, or an open one, from one that has taken its place, or has been cut since."""
    status = os.stat(path)
    return status.st_ino, status.st_size


def _checksum(key: str, entry: Entry) -> str:
    digest = hashlib.sha256(key.encode())
    hash_tensors(digest, entry)
    return digest.hexdigest()


def hash_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Add names, types, shapes and values of tensors to a hash of `hashlib`, in the order of the names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(as_bytes(tensor))


def as_bytes(tensor: Tensor) -> memoryview:
    """The content of a tensor, brought to the CPU."""
    content: memoryview = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    return content


def _replace(path: Path, content: bytes) -> tuple[int, int]:
    """Let a file appear with its whole content; the checksum stands in for waiting until the disk has it.

    Returns:
        What tells the file from others; another process may have removed it already, to make room.
    """
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            which = _which(stream.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return which
