"""The files of a bundle, from a folder or a zip, found without following anything out of it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.errors import ExportError
from monai_fedlora.export.check.archive import ArchiveError, Limits, open_archive, unsafe_path
from monai_fedlora.export.check.findings import Finding

_LIMITS = Limits(members=1000, size=64 << 30)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The files of a bundle.

    Attributes:
        root: the folder they lie in.
        files: size in bytes by path inside the bundle, with ``/`` between its parts, sorted.
    """

    root: Path
    files: Mapping[str, int]

    def path(self, name: str) -> Path:
        """Where a file lies."""
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
    """Give the files of a bundle, or what forbids to look at them.

    A zip is unpacked into a temporary folder that is removed afterwards.

    Raises:
        ExportError: there is nothing to look at.
    """
    if not bundle.exists():
        raise ExportError(f"{bundle} does not exist; give a bundle's folder or its zip file")
    if bundle.is_dir():
        yield _listed(bundle.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="monai-fedlora-check-") as scratch:
        try:
            root = _unpacked(bundle, Path(scratch))
        except ArchiveError as error:
            yield [Finding(rule="container", file=".", problem=f"the file {error}")]
        else:
            yield _listed(root)


def _unpacked(bundle: Path, scratch: Path) -> Path:
    with bundle.open("rb") as stream, open_archive(stream, _LIMITS) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
        if len(roots) != 1 or not all("/" in name for name in archive.namelist()):
            raise ArchiveError("does not hold exactly one folder, as the zip of a bundle does")
        for member in archive.infolist():
            target = scratch / member.filename
            if not member.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    return scratch / roots.pop()


def _listed(root: Path) -> Contents | list[Finding]:
    files: dict[str, int] = {}
    findings = []
    for folder, folders, names in os.walk(root, onerror=_refuse):
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                problem: str | None = "is a symbolic link; a bundle holds files only"
            elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                problem = "is a special file; a bundle holds plain files only"
            else:
                problem = unsafe_path(relative)
            if problem:
                findings.append(Finding(rule="container", file=relative, problem=problem))
            elif stat.S_ISREG(mode):
                files[relative] = path.lstat().st_size
        if len(files) > _LIMITS.members:
            findings.append(Finding(rule="container", file=".", problem=f"has more than {_LIMITS.members:,} files"))
            break
    return findings or Contents(root=root, files=dict(sorted(files.items())))


def _refuse(error: OSError) -> None:
    raise ExportError(f"{error.filename} cannot be read: {error.strerror}")
