"""What there is to classify: files, folders, archives, or a csv that lists many."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.clinic.bundle import CINE
from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.data.rows import Row, read_rows
from monai_fedlora.errors import DataError
from monai_fedlora.transforms.photograph_file import SUFFIXES

PAIR = re.compile(r"(?P<study>.+)_(?P<frame>ed|es)\.nii(\.gz)?", re.IGNORECASE)
NIFTI = (".nii", ".nii.gz")
_COLUMNS = ("ed", "es", "cine", "image", "folder")


@dataclass(frozen=True, slots=True)
class CineFile:
    """A 4D NIfTI file, and the frame numbers (ED, ES) from 0 if they are known."""

    file: Path
    frames: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class DicomFiles:
    """A folder or zip archive with one DICOM study, and the frame numbers (ED, ES) from 0 if they are known."""

    path: Path
    frames: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """One patient's images.

    Attributes:
        name: what the results call it.
        files: where the images are.
    """

    name: str
    files: FramePair | CineFile | DicomFiles | Photograph


def find_studies(inputs: Sequence[str | Path], *, modality: str) -> list[Study]:
    """List the studies that are given.

    Of a cine: ``<study>_ed.nii.gz`` with ``<study>_es.nii.gz`` (or ``.nii``), one of the two standing for both; any
    other NIfTI file, as a 4D cine; a zip archive with a DICOM study; a folder with such files; a folder without, as a
    DICOM study. Of a photograph: a JPEG, PNG or TIFF file, or a folder of them. Of either: a csv, see
    :func:`read_list`. Files are opened later, so that a bad one costs nothing but itself.

    Args:
        inputs: paths.
        modality: what the model takes, "cine" or "image".

    Returns:
        Studies in the order given, those of a folder in order of their names.

    Raises:
        DataError: a csv cannot be read, or two studies have the same name.
    """
    found = [study for path in inputs for study in _studies(Path(path), modality)]
    origins: dict[str, Study] = {}
    for study in found:
        other = origins.setdefault(study.name, study)
        if other.files != study.files:
            raise DataError(
                f"two studies are called {study.name!r}: {_where(other)} and {_where(study)}; rename one, or give "
                "names in the column study of a csv"
            )
    return list(origins.values())


def read_list(table: Path) -> list[Study]:
    """Read a csv with a column ``study`` and, per line, ``ed`` and ``es``, or ``cine``, ``image`` or ``folder``.

    Paths are relative to the csv; ``folder`` may name a zip archive. Where a line has ``cine`` or ``folder``, the
    columns ``ed_frame`` and ``es_frame`` may name the frames, counted from 0.

    Raises:
        DataError: the csv cannot be read, or a line names no image or several.
    """
    return [Study(row.text("study"), _listed(row, table.parent)) for row in read_rows(table, required=["study"])]


def _studies(path: Path, modality: str) -> Iterable[Study]:
    if path.suffix.lower() == ".csv":
        return read_list(path)
    if path.is_dir():
        return _in_folder(path, modality)
    return [_single(path, modality)]


def _in_folder(folder: Path, modality: str) -> Iterable[Study]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    endings = NIFTI if modality == CINE else SUFFIXES
    chosen = [file for file in files if file.name.lower().endswith(endings)]
    if chosen:
        return [_single(file, modality) for file in chosen]
    return [Study(folder.resolve().name, DicomFiles(folder))]


def _single(path: Path, modality: str) -> Study:
    name = path.name.lower()
    if modality != CINE and not name.endswith(".zip"):
        return Study(path.stem, Photograph(path))
    if match := PAIR.fullmatch(path.name):
        ed, es = (_partner(path, match["frame"], frame) for frame in ("ed", "es"))
        return Study(match["study"], FramePair(ed, es))
    if name.endswith(NIFTI):
        return Study(path.name[: name.rindex(".nii")], CineFile(path))
    return Study(path.stem, DicomFiles(path))


def _partner(path: Path, frame: str, wanted: str) -> Path:
    """The file of the other frame, compressed or not; where there is none, the name that it should have."""
    if frame.lower() == wanted:
        return path
    start, _, ending = path.name.rpartition(frame)
    word = wanted.upper() if frame.isupper() else wanted
    names = [start + word + other for other in (ending, *NIFTI)]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), path.with_name(names[0]))


def _listed(row: Row, folder: Path) -> FramePair | CineFile | DicomFiles | Photograph:
    given = [column for column in _COLUMNS if row.cells.get(column)]

    def file(column: str) -> Path:
        return Path(os.path.abspath(folder / row.text(column)))

    if given == ["ed", "es"]:
        return FramePair(file("ed"), file("es"))
    if given == ["image"]:
        return Photograph(file("image"))
    if given == ["cine"]:
        return CineFile(file("cine"), _frames(row))
    if given == ["folder"]:
        return DicomFiles(file("folder"), _frames(row))
    raise DataError(
        f"{row.origin}: give ed and es, or cine, image or folder, and leave the other columns empty; "
        f"given: {', '.join(given) or 'none'}"
    )


def _frames(row: Row) -> tuple[int, int] | None:
    if not (row.cells.get("ed_frame") or row.cells.get("es_frame")):
        return None
    return row.integer("ed_frame"), row.integer("es_frame")


def _where(study: Study) -> str:
    files = study.files
    if isinstance(files, FramePair):
        return str(files.ed)
    return str(files.path if isinstance(files, DicomFiles) else files.file)
