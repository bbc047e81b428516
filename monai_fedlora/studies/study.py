"""What a study is: one patient's images, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from monai_fedlora.data.records import FramePair, Photograph

CINE, IMAGE = "cine", "image"
"""What a network takes: the two frames of a cine, or a photograph."""


@dataclass(frozen=True, slots=True)
class CineFile:
    """A 4D NIfTI file, and the frame numbers (ED, ES) from 0 if they are known."""

    file: Path
    frames: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class DicomFiles:
    """A folder or zip archive with a DICOM study, and the frame numbers (ED, ES) from 0 if they are known.

    Attributes:
        path: the folder or archive, or a single object with many frames.
        frames: counted from 0.
        members: which of its files are the study's, by their paths in it; empty means all.
        names: what people call its files, as (path in it, name); files that are missing there are called as they are.
    """

    path: Path
    frames: tuple[int, int] | None = None
    members: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Packed:
    """Files in a zip archive.

    Attributes:
        archive: the archive.
        files: what they are; their paths are those in the archive.
    """

    archive: Path
    files: FramePair | CineFile | Photograph

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of the files, in the archive."""
        return (self.files.ed, self.files.es) if isinstance(self.files, FramePair) else (self.files.file,)

    def placed(self, places: Mapping[PurePosixPath, Path]) -> FramePair | CineFile | Photograph:
        """The files where they lie once they are unpacked."""
        found = [places[PurePosixPath(path)] for path in self.paths]
        if isinstance(self.files, FramePair):
            return FramePair(*found)
        return replace(self.files, file=found[0])


@dataclass(frozen=True, slots=True)
class Unusable:
    """What was meant to be a study and is none.

    Attributes:
        reason: why, and what to do.
    """

    reason: str


Files = FramePair | CineFile | DicomFiles | Photograph | Packed | Unusable


@dataclass(frozen=True, slots=True)
class Study:
    """One patient's images.

    Attributes:
        name: what the results call it.
        files: where the images are.
        quotes: which files beside them were left out; their names may name a person.
        is_pseudonym: whether the name stands for another that may name a person; then no result quotes the files.
    """

    name: str
    files: Files
    quotes: tuple[str, ...] = ()
    is_pseudonym: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that lies among those of the studies and belongs to none.

    Attributes:
        file: where it is, for people.
        reason: why it was not read.
    """

    file: str
    reason: str
