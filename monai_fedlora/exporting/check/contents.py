"""Copy a bundle's files from a folder or a zip to a private folder, without following links out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.copying import copy_files, copy_stream, require_room
from monai_fedlora.exporting.check.findings import Finding
from monai_fedlora.exporting.check.plain_zip import ArchiveError, Limits, open_archive, unsafe_path
from monai_fedlora.scratch import private_folder

_LIMITS = Limits(members=1000, size=64 << 30)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The private copy of a bundle's files.

    Attributes:
        name: of the bundle's folder.
        root: folder of the copy.
        files: size in bytes by path inside the bundle, with ``/`` between its parts, sorted.
        digests: SHA-256 of the copied bytes by path.
    """

    name: str
    root: Path
    files: Mapping[str, int]
    digests: Mapping[str, str]

    def path(self, name: str) -> Path:
        """Path of a file's copy."""
        return self.root / name

    def read(self, name: str, limit: int = 16 << 20) -> bytes:
        """Read a file.

        Raises:
            ExportError: it is larger than ``limit`` bytes.
        """
        if self.files[name] > limit:
            raise ExportError(f"has {self.files[name]:,} bytes, more than the {limit:,} that such a file needs")
        return self.path(name).read_bytes()


@contextmanager
def open_contents(bundle: Path) -> Iterator[Contents | list[Finding]]:
    """Yield a private copy of a bundle's files, or the findings because of which none was made.

    The copy is checked and loaded in place of the bundle, so that nobody can change files in between. It lies in a
    temporary folder that is removed afterwards.

    Raises:
        ExportError: there is no bundle, no room for the copy, or somebody was writing to the bundle.
    """
    if not bundle.exists():
        raise ExportError(f"{bundle} does not exist; give a bundle's folder or its zip file")
    with private_folder("monai-fedlora-check-") as scratch:
        if bundle.is_dir():
            yield _copied(bundle.resolve(), scratch)
            return
        try:
            found = _unpacked(bundle, scratch)
        except ArchiveError as error:
            yield [Finding(rule="container", file=".", problem=f"the file {error}")]
        else:
            yield found


def _unpacked(bundle: Path, scratch: Path) -> Contents | list[Finding]:
    digests, sizes = {}, {}
    with _readable(bundle), bundle.open("rb") as stream, open_archive(stream, _LIMITS) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
        if len(roots) != 1 or not all("/" in name for name in archive.namelist()):
            raise ArchiveError("does not hold exactly one folder, as the zip of a bundle does")
        require_room(sum(member.file_size for member in archive.infolist()), scratch)
        for member in archive.infolist():
            if not member.is_dir():
                name = member.filename.partition("/")[2]
                with archive.open(member) as source:
                    digests[name] = copy_stream(source, scratch / member.filename, member.file_size)
                    source.read(1)  # compares the checksum
                sizes[name] = member.file_size
    root = roots.pop()
    return Contents(name=root, root=scratch / root, files=dict(sorted(sizes.items())), digests=digests)


def _copied(folder: Path, scratch: Path) -> Contents | list[Finding]:
    files = _listed(folder)
    if isinstance(files, list):
        return files
    root = scratch / (folder.name or "bundle")
    root.mkdir(mode=0o700)
    return Contents(name=folder.name, root=root, files=files, digests=copy_files(folder, files, root))


def _listed(root: Path) -> dict[str, int] | list[Finding]:
    """Size of every file by path, without opening any; or findings."""
    files: dict[str, int] = {}
    findings = []
    entries = 0
    for folder, folders, names in os.walk(root, onerror=_refuse):
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            try:
                status = path.lstat()
            except FileNotFoundError:
                raise ExportError(f"{path} went away while the bundle was read; try again") from None
            if stat.S_ISLNK(status.st_mode):
                problem: str | None = "is a symbolic link; a bundle holds files only"
            elif not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
                problem = "is a special file; a bundle holds plain files only"
            else:
                problem = unsafe_path(relative)
            if problem:
                findings.append(Finding(rule="container", file=relative, problem=problem))
            elif stat.S_ISREG(status.st_mode):
                files[relative] = status.st_size
        entries += len(folders) + len(names)
        if entries > _LIMITS.members:
            findings.append(Finding(rule="container", file=".", problem=f"has more than {_LIMITS.members:,} files"))
            break
    if sum(files.values()) > _LIMITS.size:
        findings.append(Finding(rule="container", file=".", problem=f"has more than {_LIMITS.size:,} bytes"))
    return findings or dict(sorted(files.items()))


def _refuse(error: OSError) -> None:
    raise ExportError(f"{error.filename} cannot be read: {error.strerror}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _refuse(error)
