"""List the files of a folder or a zip archive without reading them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.errors import DataError
from monai_fedlora.studies.naming import printable
from monai_fedlora.studies.study import LeftOut
from monai_fedlora.studies.zipped import find_members, reading_archive

MAXIMUM_FILES = 200_000
"""Largest number of files in a folder of studies (ours)."""
MAXIMUM_DEPTH = 16
"""Largest depth of folders below the given one (ours)."""
OF_SYSTEM = "hidden, or one of the system's own files"

Read = Callable[[PurePosixPath, int], bytes]
"""Returns the first bytes of a file: its path in the folder or archive, and how many at most. Raises OSError."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder or archive.

    Attributes:
        origin: the folder or archive.
        is_archive: whether it is an archive.
        files: in order of their names; paths in it.
        left_out: files that cannot belong to a study, whatever they contain.
    """

    origin: Path
    is_archive: bool
    files: tuple[PurePosixPath, ...]
    left_out: tuple[LeftOut, ...]

    @contextmanager
    def reader(self) -> Iterator[Read]:
        """Yield a function that reads the files.

        Raises:
            DataError: the archive is damaged.
        """
        with ExitStack() as stack:
            source = stack.enter_context(reading_archive(self.origin)) if self.is_archive else None
            members = find_members(self.origin, source) if source else {}

            def read(file: PurePosixPath, limit: int) -> bytes:
                with (self.origin / file).open("rb") if source is None else source.open(members[file]) as stream:
                    return stream.read(limit)

            yield read

    def shown(self, file: PurePosixPath) -> str:
        """Path of a file for messages, without control characters."""
        return printable(str(self.origin / file))


def list_folder(folder: Path) -> Listing:
    """List a folder and its sub-folders.

    Raises:
        DataError: it holds more than :data:`MAXIMUM_FILES` files.
    """
    files: list[PurePosixPath] = []
    left_out: list[LeftOut] = []

    def leave(path: Path, reason: str) -> None:
        left_out.append(LeftOut(printable(str(path)), reason))

    def failed(error: OSError) -> None:
        leave(Path(error.filename or folder), f"cannot be read ({error.strerror})")

    for root, folders, names in os.walk(folder, onerror=failed):
        place = Path(root)
        depth = len(place.relative_to(folder).parts)
        for name in sorted(folders):
            path = place / name
            if is_of_system(PurePosixPath(name)):
                leave(path, OF_SYSTEM)
            elif path.is_symlink():
                leave(path, "a link to a folder")
            elif depth >= MAXIMUM_DEPTH:
                leave(path, f"more than {MAXIMUM_DEPTH} folders deep")
            else:
                continue
            folders.remove(name)
        folders.sort()
        for name in sorted(names):
            path = place / name
            if is_of_system(PurePosixPath(name)):
                leave(path, OF_SYSTEM)
            elif not path.is_file():
                leave(path, "no file: a broken link, or a device")
            else:
                files.append(PurePosixPath(path.relative_to(folder)))
        if len(files) > MAXIMUM_FILES:
            raise DataError(f"{folder} holds more than {MAXIMUM_FILES:,} files; give the studies' own folders")
    return Listing(origin=folder, is_archive=False, files=tuple(files), left_out=tuple(left_out))


def list_archive(archive: Path) -> Listing:
    """List a zip archive; nothing is unpacked.

    Raises:
        DataError: it is damaged, encrypted, too large, or holds paths that lead outside of it.
    """
    files: list[PurePosixPath] = []
    left_out: list[LeftOut] = []
    with reading_archive(archive) as source:
        for name in sorted(find_members(archive, source)):
            if is_of_system(name):
                left_out.append(LeftOut(printable(str(archive / name)), OF_SYSTEM))
            elif len(name.parts) > MAXIMUM_DEPTH:
                left_out.append(LeftOut(printable(str(archive / name)), f"more than {MAXIMUM_DEPTH} folders deep"))
            else:
                files.append(name)
    return Listing(origin=archive, is_archive=True, files=tuple(files), left_out=tuple(left_out))
