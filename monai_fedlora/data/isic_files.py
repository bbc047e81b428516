"""What copies of the ISIC archive's images have beside these: masks of the lesions, and tables that name them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from monai_fedlora.data.photographs import stem
from monai_fedlora.data.records import Masks
from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.errors import DataError
from monai_fedlora.formats.image_header import check_image_header
from monai_fedlora.formats.photograph_file import SUFFIXES
from monai_fedlora.formats.rows import read_header_row, read_rows
from monai_fedlora.measures.structures import ISIC_VALUE, LESION

MASK_SUFFIX = "_segmentation"
"""Ends the name of a mask, before the file's suffix, in capitals or not."""

_TABLES = (
    *(f"ISIC_2019_Training_Metadata{suffix}" for suffix in (".csv", "")),
    *(f"HAM10000_metadata{suffix}" for suffix in (".csv", ".tab", "")),
    "metadata.csv",
)
_IMAGE_COLUMNS = ("image", "image_id", "isic_id")
_LESION_COLUMN = "lesion_id"
_MASK_NAME = re.compile(rf"(?P<image>.+){MASK_SUFFIX}", re.IGNORECASE)


def image_files(source: Path) -> list[Path]:
    """All files of a folder and of the folders in it that are called as photographs are, sorted."""
    folders = [source, *(path for path in source.iterdir() if path.is_dir())] if source.is_dir() else []
    files = [path for folder in folders for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return sorted(path for path in files if not is_of_system(PurePath(path.name)))


def masked_image(file: PurePath) -> str | None:
    """The name without suffix of the photograph that a file is the mask of; None for another file."""
    found = _MASK_NAME.fullmatch(file.stem)
    return found["image"] if found else None


def find_masks(files: Iterable[Path]) -> dict[str, Masks]:
    """The masks among some files, by the name of their photograph without suffix.

    Raises:
        DataError: a photograph has two, or a file is damaged.
    """
    found: dict[str, Path] = {}
    for file in files:
        name = masked_image(file)
        if name is None:
            continue
        if (other := found.setdefault(name, file)) != file:
            raise DataError(f"{other} and {file} are both masks of {name}; keep one of the two")
        check_image_header(file)
    return {name: Masks((file,), {LESION: ISIC_VALUE}) for name, file in found.items()}


def lesions(source: Path) -> dict[str, str]:
    """The lesion of every image that a table in a folder lists; the first table that lists it counts.

    Raises:
        DataError: a table is wrong.
    """
    found: dict[str, str] = {}
    for name in _TABLES:
        path = source / name
        if not path.is_file():
            continue
        head = read_header_row(path)
        image = next((column for column in _IMAGE_COLUMNS if column in head), _IMAGE_COLUMNS[0])
        for row in read_rows(path, required=(image, _LESION_COLUMN)):
            if lesion := row.cells[_LESION_COLUMN]:
                found.setdefault(stem(row.text(image)), lesion)
    return found
