"""The files of a study's folder or zip archive, within bounds."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from monai_fedlora.errors import DataError
from monai_fedlora.files import open_new
from monai_fedlora.scratch import private_folder

MAXIMUM_FILES = 20_000
MAXIMUM_BYTES = 8 << 30
_CHUNK = 1 << 20


@contextmanager
def study_files(path: Path) -> Iterator[list[Path]]:
    """Yield every file of a folder and its sub-folders, or of a zip archive, in order of their names.

    An archive is unpacked into a temporary, owner-only folder that is removed at the end, under numbers in place of
    the names in it. Links and hidden files are left out.

    Raises:
        DataError: there is no such folder or archive; it has more files or bytes than a study has
            (:data:`MAXIMUM_FILES`, :data:`MAXIMUM_BYTES`); or the archive is damaged, encrypted, or names files
            outside itself.
    """
    if path.is_dir():
        yield _walk(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        with private_folder("monai-fedlora-") as scratch:
            yield _unpack(path, scratch)
    elif path.is_file():
        raise DataError(f"{path} is a single file; a DICOM study is given as its folder, or as a zip archive of it")
    else:
        raise DataError(f"{path} does not exist; give a study's folder, zip archive or files")


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    size = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root) / name
            if name.startswith(".") or file.is_symlink() or not file.is_file():
                continue
            found.append(file)
            size += file.stat().st_size
            _check_bounds(folder, len(found), size)
    return found


def _unpack(archive: Path, scratch: Path) -> list[Path]:
    found: list[Path] = []
    size = 0
    try:
        with zipfile.ZipFile(archive) as source:
            members = sorted(source.infolist(), key=lambda member: member.filename)
            _check_bounds(archive, len(members), sum(member.file_size for member in members))
            for member in members:
                if not _is_wanted(archive, member):
                    continue
                found.append(scratch / f"{len(found):06d}")
                with source.open(member) as packed, open_new(found[-1]) as plain:
                    while chunk := packed.read(_CHUNK):
                        size += len(chunk)
                        _check_bounds(archive, len(found), size)
                        plain.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); make the archive again") from error
    return found


def _is_wanted(archive: Path, member: zipfile.ZipInfo) -> bool:
    place = PurePosixPath(member.filename.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in member.filename:
        raise DataError(f"{archive} names a file outside itself, {member.filename!r:.80}; it is not safe to unpack")
    if member.flag_bits & 1:
        raise DataError(f"{archive} is encrypted; unpack it and give the folder")
    is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
    return not (member.is_dir() or is_link or any(part.startswith(".") or part == "__MACOSX" for part in place.parts))


def _check_bounds(origin: Path, files: int, size: int) -> None:
    if files > MAXIMUM_FILES or size > MAXIMUM_BYTES:
        raise DataError(
            f"{origin} holds more than a study does: {files} files, {size / 2**30:.1f} GiB so far; at most "
            f"{MAXIMUM_FILES} files and {MAXIMUM_BYTES >> 30} GiB are read"
        )
