"""The files of a study's folder or zip archive, limited in number and size."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath

from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.errors import DataError
from monai_fedlora.files import open_new
from monai_fedlora.scratch import private_folder

MAXIMUM_FILES = 20_000
MAXIMUM_BYTES = 8 << 30
_CHUNK = 1 << 20
_UTF8, _ENCRYPTED = 0x800, 0x1  # flags of a member
_LINK, _KIND = 0o120000, 0o170000


def is_archive(path: PurePath) -> bool:
    """Whether a file is a zip archive, by its name."""
    return path.suffix.lower() == ".zip"


@contextmanager
def study_files(path: Path, members: Collection[str] = ()) -> Iterator[list[Path]]:
    """Yield every file of a folder and its sub-folders, or of a zip archive, in alphabetical order; or a single file.

    An archive is unpacked into a temporary, owner-only folder that is removed at the end. Unpacked files have numbers
    for names; a `DataError` raised inside the block is changed to name the members of the archive. Links, hidden files
    and those of the operating system are left out.

    Args:
        path: the folder, archive or file.
        members: paths in the folder or archive of the files to yield; empty means all.

    Raises:
        DataError: the folder or archive does not exist, has more than :data:`MAXIMUM_FILES` files or
            :data:`MAXIMUM_BYTES` bytes, or the archive is damaged, encrypted, or holds paths that lead outside of it.
    """
    if path.is_dir():
        yield [path / member for member in members] if members else _walk(path)
    elif is_archive(path) and path.is_file():
        with unpacked(path, [PurePosixPath(member) for member in members]) as files:
            yield list(files.values())
    elif path.is_file():
        yield [path]
    else:
        raise DataError(f"{path} does not exist; give a study's folder, zip archive or files")


@contextmanager
def unpacked(archive: Path, members: Sequence[PurePosixPath] = ()) -> Iterator[dict[PurePosixPath, Path]]:
    """Unpack members of a zip archive into a temporary, owner-only folder that is removed at the end.

    Args:
        archive: the archive.
        members: paths of the members to unpack; empty means all but links, hidden files and those of the system.

    Yields:
        The unpacked file of each member: a number with the ending of the member's name. A `DataError` raised inside the
        block is changed to name the members.

    Raises:
        DataError: as of :func:`study_files`; or a member is not there.
    """
    with private_folder("monai-fedlora-") as scratch:
        files = _unpack(archive, scratch, members)
        try:
            yield files
        except DataError as error:
            text = str(error)
            for member, file in files.items():
                text = text.replace(str(file), str(archive / member))
            raise DataError(text) from error


@contextmanager
def reading_archive(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive.

    Raises:
        DataError: it is no zip archive, or what is read inside the block is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            yield source
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); make the archive again") from error


def find_members(archive: Path, source: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files in a zip archive except links, by their paths in it.

    Raises:
        DataError: there are too many files or bytes, a file is encrypted, or a path leads outside of the archive or
            occurs twice.
    """
    members = source.infolist()
    _check_bounds(archive, len(members), sum(member.file_size for member in members))
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        name = member_name(member)
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\0" in name:
            raise DataError(f"{archive} names a file outside itself, {name!r:.80}; it is not safe to unpack")
        if member.flag_bits & _ENCRYPTED:
            raise DataError(f"{archive} is encrypted; unpack it and give the folder")
        if name.endswith("/") or (member.external_attr >> 16) & _KIND == _LINK:
            continue
        if place in found:
            raise DataError(f"{archive} holds {name!r:.80} twice; make the archive again")
        found[place] = member
    return found


def member_name(member: zipfile.ZipInfo) -> str:
    r"""The path of a member with ``/`` between folders, also where Windows wrote ``\``.

    A name that is not marked as UTF-8 is read as UTF-8 if that is possible, because macOS does not mark it.
    """
    name = member.orig_filename
    if not member.flag_bits & _UTF8:
        raw = name.encode("cp437")
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            name = raw.decode("cp437")
    return name.replace("\\", "/")


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    size = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_of_system(PurePath(name)))
        for name in sorted(names):
            file = Path(root) / name
            if is_of_system(PurePath(name)) or file.is_symlink() or not file.is_file():
                continue
            found.append(file)
            size += file.stat().st_size
            _check_bounds(folder, len(found), size)
    return found


def _unpack(archive: Path, scratch: Path, wanted: Sequence[PurePosixPath]) -> dict[PurePosixPath, Path]:
    found: dict[PurePosixPath, Path] = {}
    size = 0
    with reading_archive(archive) as source:
        members = find_members(archive, source)
        for name in wanted or sorted(name for name in members if not is_of_system(name)):
            if name not in members:
                raise DataError(f"{archive} holds no {name}; make the archive again")
            found[name] = scratch / f"{len(found):06d}{_ending(name)}"
            with source.open(members[name]) as packed, open_new(found[name]) as plain:
                while chunk := packed.read(_CHUNK):
                    size += len(chunk)
                    _check_bounds(archive, len(found), size)
                    plain.write(chunk)
    return found


def _ending(name: PurePosixPath) -> str:
    """The last two endings of a name, if they are plain words; some readers depend on them."""
    return "".join(part for part in name.suffixes[-2:] if part[1:].isalnum() and part.isascii() and len(part) < 8)


def _check_bounds(origin: Path, files: int, size: int) -> None:
    if files > MAXIMUM_FILES or size > MAXIMUM_BYTES:
        raise DataError(
            f"{origin} holds more than a study does: {files} files, {size / 2**30:.1f} GiB so far; at most "
            f"{MAXIMUM_FILES} files and {MAXIMUM_BYTES >> 30} GiB are read"
        )
