"""Group DICOM files by the study that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from monai_fedlora.errors import DataError
from monai_fedlora.formats.dicom_files import naming_damage, read_object

OTHERS = ""
NAMELESS = "no StudyInstanceUID"


def group_by_study(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Sort files by the DICOM study that they belong to.

    Args:
        files: of a folder or archive.

    Returns:
        The files of each study, by study instance UID, in the order given. Files that are not DICOM, damaged or a
        DICOMDIR are under :data:`OTHERS`, images without the UID under :data:`NAMELESS`, if there are any. The files of
        one study together with these are what :func:`monai_fedlora.clinic.dicom_headers.read_image_headers` reads.

    Raises:
        ConfigError: one is DICOM, and pydicom is not installed.
    """
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_study(file), []).append(file)
    return found


def _study(path: Path) -> str:
    try:
        dataset = read_object(path, ["StudyInstanceUID"])
        with naming_damage(f"{path} is a damaged DICOM file", "copy it again from the source"):
            if dataset is None or "SOPClassUID" not in dataset:
                return OTHERS
            return str(dataset.get("StudyInstanceUID") or NAMELESS)
    except DataError:
        return OTHERS
