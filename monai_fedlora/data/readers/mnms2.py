"""M&Ms-2: 360 patients of three vendors, chosen for their right ventricles.

Martin-Isla et al., IEEE JBHI 27(7):3302-3313, 2023. ``dataset_information.csv`` and
``dataset/NNN/NNN_SA_{ED,ES}.nii.gz``; codes 1 to 160 are training, 161 to 200 validation, 201 to 360 test.
"""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

from monai_fedlora.data.cases import SPLITS
from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import FramePair, Masks, Record, check_unique, known_group, pair_geometry, vendor_name
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import Row, read_rows

GROUPS = ("NOR", "LV", "HCM", "ARR", "FALL", "CIA", "RV", "TRI")
"""The diseases of the dataset, normal first."""
MASK_VALUES = {"LV": 1, "MYO": 2, "RV": 3}
"""Values of the masks of the dataset."""

_TABLE = "dataset_information.csv"
_LAST_OF_SPLIT = (160, 200, 360)


def read_mnms2(source: Path) -> list[Record]:
    """Read every patient of an M&Ms-2 copy.

    Args:
        source: the folder with ``dataset_information.csv`` and ``dataset``, or the parent of ``MnM2``.

    Returns:
        Records sorted by subject, with the published split. Codes are three digits, such as ``007``.

    Raises:
        DataError: the csv is missing or wrong, an image is missing or damaged, or a patient occurs twice.
    """
    root = source / "MnM2" if (source / "MnM2" / _TABLE).is_file() else source
    rows = read_rows(root / _TABLE, required=("SUBJECT_CODE", "DISEASE", "VENDOR"))
    records = [_patient(row, root / "dataset") for row in rows]
    check_unique(records)
    return sorted(records, key=lambda record: record.subject)


def _patient(row: Row, folder: Path) -> Record:
    code = row.integer("SUBJECT_CODE")
    subject = f"{code:03d}"
    if not 1 <= code <= _LAST_OF_SPLIT[-1]:
        raise DataError(f"{row.origin}: SUBJECT_CODE {code} is not one of the dataset's 1 to {_LAST_OF_SPLIT[-1]}")
    images = FramePair(*(folder / subject / f"{subject}_SA_{phase}.nii.gz" for phase in ("ED", "ES")))
    geometry = pair_geometry(images)
    masks = tuple(folder / subject / f"{subject}_SA_{phase}_gt.nii.gz" for phase in ("ED", "ES"))
    absent = [mask for mask in masks if not mask.is_file()]
    if len(absent) == 1:
        raise DataError(f"{absent[0]} does not exist, but the mask of the other frame does; download the patient again")
    return Record(
        subject=subject,
        origin=row.origin,
        images=images,
        spacing=geometry.spacing,
        notes=geometry.notes,
        group=known_group(row.text("DISEASE"), GROUPS, origin=row.origin),
        vendor=vendor_name(row.text("VENDOR")),
        split=SPLITS[bisect_left(_LAST_OF_SPLIT, code)],
        masks=None if absent else Masks(masks, MASK_VALUES),
        columns=row.cells,
    )


READER = Reader(
    read=read_mnms2,
    text="M&Ms-2: the folder with dataset_information.csv",
    source="Martin-Isla et al., IEEE JBHI 27(7):3302-3313, 2023",
    groups=GROUPS,
    by=("vendor", "spacing"),
)
"""The reader behind ``monai-fedlora data mnms2``."""
