"""FedDRG: diabetic retinopathy grades of six public sources, in GDRBench's layout.

Che et al., "Towards Generalizable Diabetic Retinopathy Grading in Unseen Domains", MICCAI 2023.
``images/<DOMAIN>/<class folder>/<file>`` are the photographs; ``splits/<DOMAIN>_{train,crossval}.txt`` list them with
their grade 0 to 4, as ``<DOMAIN>/<class folder>/<file> <grade>``. GDRBench trains on ``train``, selects the model on
``crossval`` and tests on all images of a domain it has not seen. Here every domain is a site, so ``crossval`` is the
published validation split and there is no published test split: one is drawn from ``train`` (ours).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from monai_fedlora.data.photographs import Listed, find_photographs, stem
from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import Record, check_unique
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import whole_number

GROUPS = ("nodr", "mild_npdr", "moderate_npdr", "severe_npdr", "pdr")
"""The class folders in the order of the grades 0 to 4."""

NORMAL = "nodr"
"""The class that the binary task calls NOR."""

CENTRES = ("APTOS", "DEEPDR", "FGADR", "IDRID", "MESSIDOR", "RLDR")
"""The six training domains of GDRBench."""

_LISTS = {"train": "training", "crossval": "validation"}
_PATIENTS = {"DEEPDR": re.compile(r"([0-9]+)_[lr][0-9]+"), "RLDR": re.compile(r"([0-9]+)_(?:left|right)")}
"""Domains whose file names contain the patient, who has several photographs of an eye, or of both eyes."""


@dataclass(frozen=True, slots=True)
class _Line:
    origin: str
    domain: str
    path: PurePosixPath
    grade: int
    split: str


def read_feddrg(source: Path) -> list[Record]:
    """Read every image of the domains that a GDRBench copy has.

    Args:
        source: the folder with ``images`` and ``splits``, or the parent of ``GDRBench``. A domain is there if it has a
            folder in ``images``, in capitals or not; further domains of GDRBench are not read.

    Returns:
        Records sorted by subject, which is the path in the list, because file names of IDRID occur twice. ``centre`` is
        the domain, ``unit`` the patient where the file name contains it.

    Raises:
        DataError: there is no domain, a list is missing or wrong, or an image is listed twice, missing or damaged.
    """
    root = source / "GDRBench" if (source / "GDRBench" / "splits").is_dir() else source
    images = root / "images"
    found = sorted(images.iterdir()) if images.is_dir() else []
    folders = {folder.name.upper(): folder for folder in found if folder.is_dir()}
    domains = [domain for domain in CENTRES if domain in folders]
    if not domains:
        raise DataError(
            f"{images} has none of the folders {', '.join(CENTRES)}; give the folder with GDRBench's images and splits"
        )
    lines = [line for domain in domains for name in _LISTS for line in _read_list(root / "splits", domain, name)]
    listed = [Listed(line.origin, folders[line.domain] / line.path.parts[1], line.path.name) for line in lines]
    records = [
        Record(
            subject=str(line.path),
            origin=line.origin,
            images=photograph,
            unit=_patient(line),
            group=GROUPS[line.grade],
            centre=line.domain,
            split=line.split,
        )
        for line, photograph in zip(lines, find_photographs(listed), strict=True)
    ]
    check_unique(records)
    return sorted(records, key=lambda record: record.subject)


def _read_list(folder: Path, domain: str, name: str) -> list[_Line]:
    path = folder / f"{domain}_{name}.txt"
    if not path.is_file():
        raise DataError(f"{path} does not exist; copy GDRBench's split files into {folder}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable text file: {error}") from error
    return [
        _parse(line.strip(), f"{path}:{number}", domain, _LISTS[name])
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _parse(text: str, origin: str, domain: str, split: str) -> _Line:
    match = re.fullmatch(r"(\S.*?)\s+(\S+)", text)
    if match is None:
        raise DataError(f"{origin}: {text!r:.80} is not '<DOMAIN>/<class folder>/<file> <grade>'")
    path = PurePosixPath(match[1])
    if len(path.parts) != 3 or ".." in path.parts or path.parts[0].upper() != domain:
        raise DataError(f"{origin}: {match[1]!r:.80} is not {domain}/<class folder>/<file>")
    grade = whole_number(match[2], name="grade", origin=origin, below=len(GROUPS))
    if path.parts[1] in GROUPS and path.parts[1] != GROUPS[grade]:
        raise DataError(f"{origin}: grade {grade} is {GROUPS[grade]}, but the folder is {path.parts[1]}")
    return _Line(origin, domain, path, grade, split)


def _patient(line: _Line) -> str | None:
    pattern = _PATIENTS.get(line.domain)
    match = pattern.fullmatch(stem(line.path.name)) if pattern else None
    return f"{line.domain}/{match[1]}" if match else None


READER = Reader(
    read=read_feddrg,
    text="FedDRG: the folder with GDRBench's images/ and splits/",
    source="Che et al., MICCAI 2023",
    groups=GROUPS,
    by=("centre",),
    normal=NORMAL,
    centres=CENTRES,
    photographs=True,
)
"""The reader behind ``monai-fedlora data feddrg``."""
