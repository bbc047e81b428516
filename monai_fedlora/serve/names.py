"""Names that come from another computer: what is shown of them, and what they say about a file."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from monai_fedlora.clinic.bundle import CINE
from monai_fedlora.clinic.volumes import NIFTI, PAIR
from monai_fedlora.transforms.photograph_file import SUFFIXES as PHOTOGRAPHS

ZIP, DICOM = ".zip", ".dcm"
_DICOM_SUFFIXES = (DICOM, ".dicom", ".ima")
_LONGEST_PART, _MOST_PARTS = 100, 8
_MAC_FOLDER = "__MACOSX"


def accepted_suffixes(modality: str) -> tuple[str, ...]:
    """Endings of files that a model of "cine" or "image" takes; DICOM files may also have none."""
    return (*NIFTI, ZIP, *_DICOM_SUFFIXES) if modality == CINE else PHOTOGRAPHS


def shown_name(given: str) -> str:
    """What is shown of a file's name and folders, separated by ``/``: no control characters, nothing that leads up.

    Files are never stored under it.
    """
    parts = [_clean(part) for part in given.replace("\\", "/").split("/")]
    return "/".join([part for part in parts if part not in ("", ".", "..")][-_MOST_PARTS:]) or "file"


def is_hidden(name: str) -> bool:
    """Whether a shown name is of a file that its system hides, or of what a Mac leaves in archives."""
    return any(part.startswith(".") or part == _MAC_FOLDER for part in name.split("/"))


def stored_suffix(name: str, modality: str) -> str | None:
    """The ending under which a file is stored; None if it is not of a kind that the model takes.

    A name without an ending or with a number as its ending may be that of a DICOM file.
    """
    file = PurePosixPath(name.lower()).name
    for suffix in accepted_suffixes(modality):
        if file.endswith(suffix):
            return DICOM if suffix in _DICOM_SUFFIXES else suffix
    ending = file.rpartition(".")[2] if "." in file else ""
    return DICOM if modality == CINE and (not ending or ending.isdigit()) else None


def stem(name: str) -> str:
    """The last part of a shown name without its ending."""
    file = name.rpartition("/")[2]
    for suffix in (*NIFTI, ZIP, *PHOTOGRAPHS):
        if file.lower().endswith(suffix) and len(file) > len(suffix):
            return file[: -len(suffix)]
    return file


def frame_of(name: str) -> tuple[str, str] | None:
    """(study, "ed" or "es") of ``<study>_ed.nii.gz`` and ``<study>_es.nii.gz``; None of any other name."""
    match = PAIR.fullmatch(name.rpartition("/")[2])
    return (match["study"], match["frame"].lower()) if match else None


def _clean(part: str) -> str:
    kept = "".join(character for character in part if unicodedata.category(character)[0] != "C")
    return kept.strip()[-_LONGEST_PART:].strip()
