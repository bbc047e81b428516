"""ACDC: 150 patients of one centre, five groups.

Bernard et al., IEEE TMI 37(11):2514-2525, 2018. ``database/{training,testing}/patientXXX/`` holds
``Info.cfg``, ``patientXXX_4d.nii.gz`` and the two annotated frames ``patientXXX_frameNN.nii.gz``, numbered
from 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import (
    Cine,
    FramePair,
    Geometry,
    Masks,
    Record,
    check_frames_differ,
    check_unique,
    cine_geometry,
    known_group,
    pair_geometry,
)
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import whole_number

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")
"""The groups of the dataset, normal first."""
MASK_VALUES = {"LV": 3, "MYO": 2, "RV": 1}
"""Values of the masks of the dataset."""

_SPLITS = {"training": "training", "testing": "test"}


def read_acdc(source: Path) -> list[Record]:
    """Read every patient of an ACDC copy.

    Args:
        source: the folder with ``training`` and ``testing``, its parent, or one of the two.

    Returns:
        Records sorted by subject, with the published split where it follows from the folder's name. The two frame
        files are used rather than the 4D file.

    Raises:
        DataError: no patient is found, an Info.cfg or image is missing or wrong, or a patient occurs twice.
    """
    records = [_patient(folder, split) for folder, split in _patient_folders(source)]
    if not records:
        raise DataError(
            f"{source} has no ACDC patient; give the folder with training/ and testing/, whose folders are "
            "called patient001 and so on"
        )
    check_unique(records)
    return sorted(records, key=lambda record: record.subject)


def _patient_folders(source: Path) -> list[tuple[Path, str | None]]:
    found: list[tuple[Path, str | None]] = []
    for root in (source, source / "database"):
        for name, split in _SPLITS.items():
            found += [(folder, split) for folder in _patients_in(root / name)]
    return found or [(folder, _SPLITS.get(source.name)) for folder in _patients_in(source)]


def _patients_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("patient*") if path.is_dir() and re.fullmatch(r"patient\d+", path.name))


def _patient(folder: Path, split: str | None) -> Record:
    info = folder / "Info.cfg"
    fields = _read_info(info)
    ed, es = (_frame_number(fields, key, info) for key in ("ED", "ES"))
    text, line = _field(fields, "Group", info)
    group = known_group(text, GROUPS, origin=f"{info}:{line}")
    check_frames_differ(ed, es, origin=str(info))
    images, geometry = _images(folder, ed, es)
    return Record(
        subject=folder.name,
        origin=str(info),
        images=images,
        spacing=geometry.spacing,
        notes=geometry.notes,
        group=group,
        vendor="siemens",
        centre="dijon",
        masks=_masks(folder, ed, es) if isinstance(images, FramePair) else None,
        split=split,
        columns={name: text for name, (text, _) in fields.items()},
    )


def _images(folder: Path, ed: int, es: int) -> tuple[FramePair | Cine, Geometry]:
    frames = [_existing(folder / f"{folder.name}_frame{number:02d}") for number in (ed, es)]
    whole = _existing(folder / f"{folder.name}_4d")
    if frames[0] and frames[1]:
        pair = FramePair(frames[0], frames[1])
        return pair, pair_geometry(pair)
    if whole:
        cine = Cine(whole, ed - 1, es - 1)
        return cine, cine_geometry(cine, origin=str(folder / "Info.cfg"))
    phase, number = ("ED", ed) if not frames[0] else ("ES", es)
    raise DataError(
        f"{folder} has neither {folder.name}_frame{number:02d}.nii.gz ({phase}) nor {folder.name}_4d.nii.gz; "
        "copy the patient again from the source"
    )


def _masks(folder: Path, ed: int, es: int) -> Masks | None:
    """The masks of both frames; one alone is an error, because a copy is then incomplete."""
    found = [_existing(folder / f"{folder.name}_frame{number:02d}_gt") for number in (ed, es)]
    if found[0] and found[1]:
        return Masks((found[0], found[1]), MASK_VALUES)
    if found[0] or found[1]:
        phase, number = ("ED", ed) if not found[0] else ("ES", es)
        raise DataError(
            f"{folder} has a mask of one frame, but no {folder.name}_frame{number:02d}_gt.nii.gz ({phase}); copy the "
            "patient again from the source"
        )
    return None


def _existing(stem: Path) -> Path | None:
    candidates = (stem.with_name(stem.name + suffix) for suffix in (".nii.gz", ".nii", ".NII.GZ", ".NII"))
    return next((path for path in candidates if path.is_file()), None)


def _read_info(path: Path) -> dict[str, tuple[str, int]]:
    """Return value and line number of every ``key: value`` line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist, so the patient's frames and group are unknown") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    fields: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or not value:
            raise DataError(f"{path}:{number}: expected 'key: value', found {line!r:.80}")
        if key in fields:
            raise DataError(f"{path}:{number}: {key} occurs twice")
        fields[key] = (value, number)
    return fields


def _field(fields: dict[str, tuple[str, int]], key: str, path: Path) -> tuple[str, int]:
    if key not in fields:
        raise DataError(f"{path} has no line '{key}: ...'")
    return fields[key]


def _frame_number(fields: dict[str, tuple[str, int]], key: str, path: Path) -> int:
    text, line = _field(fields, key, path)
    number = whole_number(text, name=key, origin=f"{path}:{line}")
    if number < 1:
        raise DataError(f"{path}:{line}: {key} is {number}, but frames count from 1")
    return number


READER = Reader(
    read=read_acdc,
    text="ACDC: the folder with training/ and testing/, or one of them",
    source="Bernard et al., IEEE TMI 37(11):2514-2525, 2018",
    groups=GROUPS,
)
"""The reader behind ``monai-fedlora data acdc``."""
