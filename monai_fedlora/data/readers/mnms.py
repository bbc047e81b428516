"""M&Ms: 345 open patients of six centres and four vendors.

Campello et al., IEEE TMI 40(12):3543-3554, 2021. ``OpenDataset/<folder>/<code>/<code>_sa.nii.gz`` are 4D, the
folders being Training/Labeled, Training/Unlabeled, Validation and Testing; one csv gives vendor, centre, the
0-based ED and ES frames and, in its newer edition, the pathology. "Unlabeled" means without masks: the
diagnosis is there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePath

from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import Cine, Masks, Record, check_unique, cine_geometry, known_group, vendor_name
from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import Row, read_header_row, read_rows

GROUPS = ("NOR", "DCM", "HCM", "HHD", "ARV", "AHS", "IHD", "LVNC", "Other")
"""The pathologies of the dataset, normal first."""
MASK_VALUES = {"LV": 1, "MYO": 2, "RV": 3}
"""Values of the masks of the dataset."""

_CODE = "External code"
_REQUIRED = (_CODE, "Vendor", "Centre", "ED", "ES")
_LETTERS = {"A": "siemens", "B": "philips", "C": "ge", "D": "canon"}
_FOLDERS = (
    ("Training/Labeled", "training"),
    ("Training/Unlabeled", "training"),
    ("Training", "training"),
    ("Validation", "validation"),
    ("Testing", "test"),
)


def read_mnms(source: Path) -> list[Record]:
    """Read every patient of an M&Ms copy.

    Args:
        source: the folder ``OpenDataset`` or its parent.

    Returns:
        Records sorted by subject, with the published split; the group is None if the csv has no pathology.

    Raises:
        DataError: the csv is missing or wrong, an image is missing or damaged, a frame number is not in its
            image, or csv and folders do not list the same patients.
    """
    root = source / "OpenDataset" if (source / "OpenDataset").is_dir() else source
    table = _find_table(root)
    folders = _patient_folders(root)
    records = [_patient(row, folders) for row in read_rows(table, required=_REQUIRED)]
    check_unique(records)
    if unlisted := sorted(set(folders) - {record.subject for record in records}):
        raise DataError(f"{folders[unlisted[0]][0].parent} is not listed in {table}, so its frames are unknown")
    return sorted(records, key=lambda record: record.subject)


def _find_table(root: Path) -> Path:
    """Return the csv of the dataset, the edition with pathologies if both are there."""
    columns = {}
    for path in sorted([*root.glob("*.csv"), *root.parent.glob("*.csv")]):
        if is_of_system(PurePath(path.name)):
            continue
        with suppress(DataError):
            columns[path] = read_header_row(path)
    tables = [path for path, names in columns.items() if _CODE in names]
    if not tables:
        raise DataError(
            f"{root} has no readable csv with a column {_CODE!r}; give the folder OpenDataset of the M&Ms download"
        )
    return max(tables, key=lambda path: ("Pathology" in columns[path], path.parent == root))


def _patient_folders(root: Path) -> dict[str, tuple[Path, str]]:
    found: dict[str, tuple[Path, str]] = {}
    for name, split in _FOLDERS:
        for image in sorted((root / name).glob("*/*_[sS][aA].[nN][iI][iI].[gG][zZ]")):
            if is_of_system(image.relative_to(root)):
                continue
            code = image.parent.name
            if image.name.lower() != f"{code}_sa.nii.gz".lower():
                raise DataError(f"{image} does not carry the name of its folder; it should be {code}_sa.nii.gz")
            if code in found:
                raise DataError(
                    f"subject {code} lies in {found[code][0].parent} and in {image.parent}; keep one of the two"
                )
            found[code] = (image, split)
    return found


def _patient(row: Row, folders: dict[str, tuple[Path, str]]) -> Record:
    code = row.text(_CODE)
    if code not in folders:
        raise DataError(f"{row.origin}: no folder has {code}_sa.nii.gz; download the patient again or delete the line")
    file, split = folders[code]
    images = Cine(file, row.integer("ED"), row.integer("ES"))
    geometry = cine_geometry(images, origin=row.origin)
    mask = file.with_name(f"{file.name[: -len('.nii.gz')]}_gt.nii.gz")
    group = None
    if "Pathology" in row.cells:
        group = known_group(row.text("Pathology"), GROUPS, origin=row.origin)
    return Record(
        subject=code,
        origin=row.origin,
        images=images,
        spacing=geometry.spacing,
        notes=geometry.notes,
        group=group,
        vendor=_vendor(row),
        centre=str(row.integer("Centre")),
        split=split,
        masks=Masks((mask,), MASK_VALUES) if mask.is_file() else None,
        columns=row.cells,
    )


def _vendor(row: Row) -> str:
    letter = row.text("Vendor").upper()
    if letter not in _LETTERS:
        raise DataError(f"{row.origin}: vendor {letter!r:.80} is unknown; this dataset has A, B, C and D")
    vendor = _LETTERS[letter]
    if (name := row.cells.get("VendorName")) and vendor_name(name) != vendor:
        raise DataError(f"{row.origin}: vendor {letter} is {vendor}, but VendorName says {name!r:.80}")
    return vendor


READER = Reader(
    read=read_mnms,
    text="M&Ms: the folder OpenDataset",
    source="Campello et al., IEEE TMI 40(12):3543-3554, 2021",
    groups=GROUPS,
)
"""The reader behind ``monai-fedlora data mnms``."""
