"""An append-only file of JSON entries, each sealed with a site's key and with all that stand before it.

It lies in a folder with its key, and once more in a second one: whoever restores the first from a backup brings back no
entry that was written since. An entry that was changed, removed from the middle or written by somebody else breaks the
seals of all that follow; what was cut off at the end is told by the second place alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_fedlora.errors import PrivacyError
from monai_fedlora.files import atomic_path, flush, for_the_owner, make_folder

CHARGES = "charges.jsonl"
KEY = "key"
_LOCK = ".lock"
_KEY_BYTES = 32
_ADVICE = "nothing trains under a budget until it is right: bring back the newest untouched copy"
_log = logging.getLogger("monai_fedlora.ledger")


class Chain:
    """Entries that are there for good.

    Args:
        folder: made for its owner alone where it is missing.
        copy: the second place; None for none.
    """

    def __init__(self, folder: Path, *, copy: Path | None = None) -> None:
        self.folder = folder
        self._copy = copy

    @contextmanager
    def opened(self) -> Iterator[OpenChain]:
        """Hold the file, alone among all processes, with its seals checked and both places alike.

        Raises:
            PrivacyError: an entry was changed, belongs to another key, or cannot be read; the file cannot be locked.
        """
        try:
            make_folder(self.folder)
            descriptor = for_the_owner(str(self.folder / _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise PrivacyError(f"{self.folder} cannot hold a ledger ({error}); {_ADVICE}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise PrivacyError(
                    f"{self.folder} cannot be locked ({error}), and two runs at once would spend the same budget; put "
                    "the private folder on a disk that has locks"
                ) from error
            yield self._read()
        finally:
            os.close(descriptor)

    def _read(self) -> OpenChain:
        key = self._key()
        lines = _lines(self.folder / CHARGES)
        copied = _lines(self._copy / CHARGES) if self._copy else []
        shared = min(len(lines), len(copied))
        if lines[:shared] != copied[:shared]:
            raise PrivacyError(
                f"{self.folder / CHARGES} and its copy in {self._copy} differ: one of them was edited or belongs to "
                f"another folder; {_ADVICE}"
            )
        longest = max(lines, copied, key=len)
        chain = OpenChain(self.folder, self._copy, key, longest)
        if len(lines) < len(copied):
            _log.warning(
                "%s was rolled back: %d of %d entries are missing, and come back from its copy in %s",
                self.folder / CHARGES,
                len(copied) - len(lines),
                len(copied),
                self._copy,
            )
            _write(self.folder / CHARGES, longest)
        if self._copy and len(copied) < len(lines):
            _log.warning(
                "%s holds %d of %d entries of %s and gets the others now: it is new, was set back, could not be "
                "written before, or its disk is not there; see that it is the right folder and mounted, else a ledger "
                "that is set back is not noticed",
                self._copy / CHARGES,
                len(copied),
                len(lines),
                self.folder / CHARGES,
            )
            _also(self._copy, lambda folder: _write(folder / CHARGES, longest))
        return chain

    def _key(self) -> bytes:
        places = [folder for folder in (self.folder, self._copy) if folder is not None]
        found = [content for folder in places if (content := _bytes(folder / KEY)) is not None]
        if len(set(found)) > 1 or any(len(key) != _KEY_BYTES for key in found):
            raise PrivacyError(
                f"{self.folder / KEY} is not the key of this ledger's copy in {self._copy}, or is damaged: the ledger "
                f"was taken from another folder; {_ADVICE}"
            )
        if not found and any(os.path.lexists(folder / CHARGES) for folder in places):
            raise PrivacyError(f"{self.folder / CHARGES} has lost the file {KEY} beside it; {_ADVICE}")
        key = found[0] if found else secrets.token_bytes(_KEY_BYTES)
        _keep_key(self.folder / KEY, key)
        _also(self._copy, lambda folder: _keep_key(folder / KEY, key))
        return key


class OpenChain:
    """The entries while nobody else can change them.

    Attributes:
        key: of the seals, 32 random bytes.
        entries: in the order of their writing.
    """

    def __init__(self, folder: Path, copy: Path | None, key: bytes, lines: Sequence[bytes]) -> None:
        self.key = key
        self.entries: list[Mapping[str, Any]] = []
        self._folder = folder
        self._copy = copy
        self._seal = ""
        for number, line in enumerate(lines, start=1):
            self.entries.append(self._unsealed(line, number))

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write entries; they are on the disk when this returns."""
        lines = []
        for entry in entries:
            self._seal = self._sealed(entry)
            lines.append(json.dumps({"entry": entry, "seal": self._seal}, sort_keys=True, allow_nan=False).encode())
        _append(self._folder / CHARGES, lines)
        _also(self._copy, lambda folder: _append(folder / CHARGES, lines))
        self.entries += entries

    def _sealed(self, entry: Mapping[str, Any]) -> str:
        content = json.dumps([self._seal, entry], sort_keys=True, allow_nan=False)
        return hmac.new(self.key, content.encode(), hashlib.sha256).hexdigest()

    def _unsealed(self, line: bytes, number: int) -> Mapping[str, Any]:
        try:
            value = json.loads(line)
            entry, seal = value["entry"], value["seal"]
            right = isinstance(entry, dict) and hmac.compare_digest(seal, self._sealed(entry))
        except (KeyError, TypeError, ValueError, RecursionError):
            right = False
        if not right:
            raise PrivacyError(
                f"{self._folder / CHARGES}: entry {number} does not fit those before it: the ledger was edited, "
                f"damaged or belongs to another site; {_ADVICE}"
            )
        self._seal = seal
        return dict(entry)


def _also(copy: Path | None, write: Callable[[Path], None]) -> None:
    """Do to the second place what was done to the first; where it cannot be written, that is a warning."""
    if copy is None:
        return
    try:
        make_folder(copy)
        write(copy)
    except OSError as error:
        _log.warning("%s cannot be written (%s): a ledger that is set back will not be noticed", copy, error)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PrivacyError(f"{path} cannot be read ({error}); {_ADVICE}") from error


def _lines(path: Path) -> list[bytes]:
    """The lines of a file; one that a crash has cut short was never part of it, as nothing was sent before its end."""
    content = _bytes(path)
    return [] if content is None else content.split(b"\n")[:-1]


def _append(path: Path, lines: Sequence[bytes]) -> None:
    with open(path, "ab+", opener=for_the_owner) as stream:
        stream.seek(0)
        whole = stream.read().rfind(b"\n") + 1
        stream.truncate(whole)
        stream.write(b"".join(line + b"\n" for line in lines))
        stream.flush()
        os.fsync(stream.fileno())
    flush(path.parent)


def _write(path: Path, lines: Sequence[bytes]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))


def _keep_key(path: Path, key: bytes) -> None:
    if not os.path.lexists(path):
        with atomic_path(path) as temporary:
            temporary.write_bytes(key)
