"""File names of uploads: how they are displayed, and which kind of file they indicate."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.formats.photograph_file import SUFFIXES as PHOTOGRAPHS
from monai_fedlora.serve.refusal import BAD_REQUEST, Refused
from monai_fedlora.studies.nifti_studies import INFO, NIFTI
from monai_fedlora.studies.study import CINE

ZIP, DICOM = ".zip", ".dcm"
_DICOM_SUFFIXES = (DICOM, ".dicom", ".ima")
_LONGEST_PART, _MOST_PARTS = 100, 8
_LONGEST_TYPED, _LONGEST_IN_FILE = 60, 40
_INFO_SUFFIX = ".cfg"


def accepted_suffixes(modality: str) -> tuple[str, ...]:
    """Endings of the files that a model for "cine" or "image" takes; DICOM files may also have none."""
    return (*NIFTI, ZIP, *_DICOM_SUFFIXES) if modality == CINE else PHOTOGRAPHS


def shown_name(given: str) -> str:
    """A file's name with its folders, separated by ``/``, for display: no control characters, no ``..``.

    Files are never stored under this name.
    """
    parts = [_clean(part) for part in given.replace("\\", "/").split("/")]
    return "/".join([part for part in parts if part not in ("", ".", "..")][-_MOST_PARTS:]) or "file"


def is_hidden(name: str) -> bool:
    """Whether a displayed name is that of a hidden file, or of one that macOS adds to archives."""
    return is_of_system(PurePosixPath(name))


def stored_suffix(name: str, modality: str) -> str | None:
    """The ending under which a file is stored; None if it is not of a kind that the model takes.

    A name without an ending or with a number as its ending may be that of a DICOM file.
    """
    file = PurePosixPath(name.lower()).name
    for suffix in accepted_suffixes(modality):
        if file.endswith(suffix):
            return DICOM if suffix in _DICOM_SUFFIXES else suffix
    if modality == CINE and file == INFO.lower():
        return _INFO_SUFFIX
    ending = file.rpartition(".")[2] if "." in file else ""
    return DICOM if modality == CINE and (not ending or ending.isdigit()) else None


def stem(name: str) -> str:
    """The last part of a displayed name without its ending."""
    file = name.rpartition("/")[2]
    for suffix in (*NIFTI, ZIP, *_DICOM_SUFFIXES, *PHOTOGRAPHS):
        if file.lower().endswith(suffix) and len(file) > len(suffix):
            return file[: -len(suffix)]
    return file


def loose_name(names: Sequence[str]) -> str:
    """Name of a study whose files are in no folder, made of their own names."""
    first = stem(min(names))
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def typed_name(given: str) -> str:
    """A name that a reader chose, in one line and without control characters.

    Raises:
        Refused: nothing is left of it, or it is too long.
    """
    name = " ".join(unicodedata.normalize("NFC", _plain(given)).split())
    if not name or len(name) > _LONGEST_TYPED:
        raise Refused(BAD_REQUEST, f"a name has 1 to {_LONGEST_TYPED} characters; choose another")
    return name


def file_part(name: str) -> str:
    """A name as a part of a file name: letters and digits of any script, ``-`` and ``_``."""
    composed = unicodedata.normalize("NFC", name)
    kept = "".join(sign if unicodedata.category(sign)[0] in "LMN" or sign == "-" else "_" for sign in composed)
    return re.sub("_+", "_", kept)[:_LONGEST_IN_FILE].strip("_-") or "study"


def _plain(text: str) -> str:
    """A text without control characters; white space becomes a space."""
    return "".join(
        " " if sign.isspace() else sign for sign in text if sign.isspace() or unicodedata.category(sign)[0] != "C"
    )


def _clean(part: str) -> str:
    kept = "".join(character for character in part if unicodedata.category(character)[0] != "C")
    return kept.strip()[-_LONGEST_PART:].strip()
