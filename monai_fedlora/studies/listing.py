"""The names of what lies in a folder or a zip archive, before anything of it is read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.errors import DataError
from monai_fedlora.studies.naming import printable
from monai_fedlora.studies.study import LeftOut
from monai_fedlora.studies.zipped import find_members, reading_archive

MAXIMUM_FILES = 200_000
"""Of a folder of studies (ours)."""
MAXIMUM_DEPTH = 16
"""Of folders below the one that is given (ours)."""
OF_SYSTEM = "hidden, or one of the system's own files"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder or archive.

    Attributes:
        origin: the folder or archive.
        is_archive: whether it is an archive.
        files: in order of their names; paths in it.
        left_out: what is no file of a study whatever it holds.
    """

    origin: Path
    is_archive: bool
    files: tuple[PurePosixPath, ...]
    left_out: tuple[LeftOut, ...]

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Read files of it.

        Raises:
            DataError: the archive is damaged.
        """
        if not self.is_archive:
            yield Reader(self.origin)
            return
        with reading_archive(self.origin) as source:
            yield Reader(self.origin, source, find_members(self.origin, source))

    def shown(self, file: PurePosixPath) -> str:
        """Where a file is, for people."""
        return printable(str(self.origin / file))


@dataclass(frozen=True)
class Reader:
    """Reads the files of a listing."""

    origin: Path
    source: zipfile.ZipFile | None = None
    members: Mapping[PurePosixPath, zipfile.ZipInfo] = field(default_factory=dict)

    def read(self, file: PurePosixPath, limit: int) -> bytes:
        """The first bytes of a file, ``limit`` at most, by its path in the folder or archive.

        Raises:
            OSError: it cannot be read.
        """
        with (self.origin / file).open("rb") if self.source is None else self.source.open(self.members[file]) as stream:
            return stream.read(limit)


def list_folder(folder: Path) -> Listing:
    """List a folder and those in it.

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
        DataError: it is damaged, encrypted, larger than a study or a batch may be, or names files outside itself.
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
