"""A study: the images of one patient, by their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from monai_fedlora.data.records import FramePair, Photograph

CINE, IMAGE = "cine", "image"
"""Kinds of a network's input: the two frames of a cine, or a photograph."""


@dataclass(frozen=True, slots=True)
class CineFile:
    """A 4D NIfTI file, and the frame numbers (ED, ES) from 0 if they are known."""

    file: Path
    frames: tuple[int, int] | None = None


Images = FramePair | CineFile | Photograph


def paths_of(images: Images) -> tuple[Path, ...]:
    """The files of a study."""
    return (images.ed, images.es) if isinstance(images, FramePair) else (images.file,)


def moved(images: Images, place: Callable[[Path], Path]) -> Images:
    """The same images with other paths, given the new path of each."""
    if isinstance(images, FramePair):
        return FramePair(place(images.ed), place(images.es))
    return replace(images, file=place(images.file))


@dataclass(frozen=True, slots=True)
class DicomFiles:
    """A folder or zip archive with a DICOM study, and the frame numbers (ED, ES) from 0 if they are known.

    Attributes:
        path: the folder or archive, or a single object with many frames.
        frames: counted from 0.
        members: paths of the study's files in the folder or archive; empty means all.
        names: names to show for its files, as (path in the folder or archive, name); other files keep their own.
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
        files: the files, by their paths in the archive.
    """

    archive: Path
    files: Images

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths of the files in the archive."""
        return paths_of(self.files)

    def placed(self, places: Mapping[PurePosixPath, Path]) -> Images:
        """The unpacked files, given the place of each."""
        return moved(self.files, lambda path: places[PurePosixPath(path)])


@dataclass(frozen=True, slots=True)
class Unusable:
    """An input that cannot be used as a study.

    Attributes:
        reason: why, and what to do.
    """

    reason: str


Files = Images | DicomFiles | Packed | Unusable


@dataclass(frozen=True, slots=True)
class Study:
    """One patient's images.

    Attributes:
        name: name of the study in the results.
        files: the image files.
        quotes: notes on files beside them that were left out; file names may contain a person's name.
        is_pseudonym: whether the name replaces one that may contain a person's name; results then mention no files.
    """

    name: str
    files: Files
    quotes: tuple[str, ...] = ()
    is_pseudonym: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file beside the studies that belongs to none of them.

    Attributes:
        file: its path for messages.
        reason: why it was not read.
    """

    file: str
    reason: str
