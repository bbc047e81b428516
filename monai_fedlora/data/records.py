"""What a reader returns: patients or photographs without labels, sites and splits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_fedlora.errors import DataError
from monai_fedlora.formats.nifti import Header, read_header

_VENDORS = (("siemens", "siemens"), ("philips", "philips"), ("canon", "canon"), ("toshiba", "canon"))


@dataclass(frozen=True, slots=True)
class FramePair:
    """Two 3D files: end-diastole and end-systole."""

    ed: Path
    es: Path


@dataclass(frozen=True, slots=True)
class Cine:
    """One 4D file and its 0-based end-diastolic and end-systolic frames."""

    file: Path
    ed: int
    es: int


@dataclass(frozen=True, slots=True)
class Photograph:
    """One 2D image file."""

    file: Path


@dataclass(frozen=True, slots=True)
class Masks:
    """Mask files, and which value of them is which structure.

    Attributes:
        files: those of end-diastole and end-systole; one 4D file beside a 4D cine, one file beside a photograph.
        values: the value of every structure that the masks outline, by its name.
    """

    files: tuple[Path, ...]
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One patient or one photograph.

    Attributes:
        subject: code of the patient, or of the photograph.
        origin: the file, with a line where there is one, that lists it; for messages.
        images: the files of end-diastole and end-systole, or the photograph.
        spacing: in-plane distance of voxels, mm (geometric mean of x and y), or None for a photograph.
        unit: the patient or lesion that several records belong to; None for a record that is alone.
        group: the diagnosis, or None where the source has none.
        vendor: the scanner's manufacturer, or None.
        centre: the acquiring centre, or the value of the site column of a table, or None.
        split: ``training``, ``validation`` or ``test`` where the dataset publishes one, or None.
        masks: outlines of structures, or None where the source has none.
        values: numbers that the source gives for the patient, by name.
        columns: everything that the source's table says of the patient or photograph, by column.
        notes: what the user should know about how it was read; the same text for all records with the same note.
    """

    subject: str
    origin: str
    images: FramePair | Cine | Photograph
    spacing: float | None = None
    unit: str | None = None
    group: str | None = None
    vendor: str | None = None
    centre: str | None = None
    split: str | None = None
    masks: Masks | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """Return the image files."""
        images = self.images
        return (images.ed, images.es) if isinstance(images, FramePair) else (images.file,)


@dataclass(frozen=True, slots=True)
class Geometry:
    """In-plane distance of voxels, mm (geometric mean of x and y), and notes on how the headers were read."""

    spacing: float
    notes: tuple[str, ...]


def pair_geometry(images: FramePair) -> Geometry:
    """Check the headers of two frame files, which may differ in their number of slices but not in the image plane.

    Raises:
        DataError: a file is missing, damaged, not 3D, or the two do not lie on the same grid.
    """
    ed, es = read_header(images.ed, axes=3), read_header(images.es, axes=3)
    same_spacing = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(ed.spacing, es.spacing, strict=True))
    if ed.shape[:2] != es.shape[:2] or not same_spacing:
        raise DataError(
            f"{images.ed} {ed.shape} at {ed.spacing} mm and {images.es} {es.shape} at {es.spacing} mm "
            "are not on the same grid; they must be two frames of one series"
        )
    return _geometry(ed, es)


def cine_geometry(images: Cine, *, origin: str) -> Geometry:
    """Check the header of a 4D file against its frame numbers.

    Raises:
        DataError: the file is missing, damaged or not 4D, or a frame is not in it.
    """
    header = read_header(images.file, axes=4)
    for name, frame in (("ED", images.ed), ("ES", images.es)):
        if not 0 <= frame < header.shape[3]:
            raise DataError(
                f"{origin}: {name} is frame {frame} counted from 0, but {images.file} has {header.shape[3]} frames"
            )
    check_frames_differ(images.ed, images.es, origin=origin)
    return _geometry(header)


def check_frames_differ(ed: int, es: int, *, origin: str) -> None:
    """Refuse the same frame as end-diastole and end-systole.

    Raises:
        DataError: the two numbers are equal.
    """
    if ed == es:
        raise DataError(f"{origin}: ED and ES are the same frame {ed}, so one of them is wrong")


def check_unique(records: Sequence[Record]) -> None:
    """Refuse a patient or a photograph that occurs twice.

    Raises:
        DataError: two records have the same subject, or the same photograph; the message names both origins.
    """
    origins: dict[str, str] = {}
    photographs: dict[Path, str] = {}
    for record in records:
        if record.subject in origins:
            advice = "a patient in two splits or sites would make the results too good"
            if isinstance(record.images, Photograph):
                advice = "every photograph needs a code of its own, and its patient or lesion belongs into the unit"
            raise DataError(
                f"subject {record.subject} occurs twice: {origins[record.subject]} and {record.origin}; {advice}"
            )
        origins[record.subject] = record.origin
        if isinstance(record.images, Photograph):
            other = photographs.setdefault(record.images.file, record.origin)
            if other != record.origin:
                raise DataError(f"{record.images.file} is listed twice: {other} and {record.origin}; delete one line")


def known_group(text: str, groups: Sequence[str], *, origin: str) -> str:
    """Return the group that ``text`` names, in capitals or not.

    Raises:
        DataError: it is none of ``groups``.
    """
    for group in groups:
        if text.strip().casefold() == group.casefold():
            return group
    raise DataError(f"{origin}: unknown pathology {text!r:.80}; this dataset has {', '.join(groups)}")


def vendor_name(text: str) -> str:
    """Return the same name for all spellings of a manufacturer, such as ``ge`` for ``GE MEDICAL SYSTEMS``."""
    words = text.casefold()
    for part, name in _VENDORS:
        if part in words:
            return name
    return "ge" if re.match(r"(ge|general electric)\b", words.strip()) else text.strip()


def _geometry(*headers: Header) -> Geometry:
    x, y, _ = headers[0].spacing
    return Geometry(math.sqrt(x * y), tuple(dict.fromkeys(note for header in headers for note in header.notes)))
