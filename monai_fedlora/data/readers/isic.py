"""Dermatoscopic images with outlined lesions, in the layout of the ISIC archive's segmentation challenges.

Codella et al., "Skin Lesion Analysis Toward Melanoma Detection 2018", arXiv 1902.03368, task 1: 2,594 training, 100
validation and 1,000 test images ``ISIC_0000000.jpg`` in folders of their own, with masks of 0 and 255 beside them or in
further folders, ``ISIC_0000000_segmentation.png``.
"""

from __future__ import annotations

from pathlib import Path

from monai_fedlora.data.isic_files import find_masks, image_files, lesions, masked_image
from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import Photograph, Record
from monai_fedlora.errors import DataError
from monai_fedlora.formats.image_header import check_image_header

_CENTRE = "isic"
_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_BESIDES = ("_superpixels", "_attribute_")
"""In the names of files that are neither photographs nor masks of lesions."""


def read_isic(source: Path) -> list[Record]:
    """Read every image of a copy, with its mask where it has one.

    Args:
        source: the folder with images and masks, or with folders of them. Which split an image is in says the name of
            its folder, such as ``ISIC2018_Task1-2_Training_Input``. The lesion of an image is taken from
            ``metadata.csv``, ``ISIC_2019_Training_Metadata.csv`` or ``HAM10000_metadata``, where one of these is there.

    Returns:
        Records sorted by image, all of one centre and without diagnoses.

    Raises:
        DataError: there is no mask, a mask has no image, an image is there twice, or a file is damaged.
    """
    files = image_files(source)
    masks = find_masks(files)
    if not masks:
        raise DataError(
            f"{source} has no mask of a lesion, a file like ISIC_0000000_segmentation.png; give the folder that holds "
            "the folders of images and of masks"
        )
    photographs: dict[str, Path] = {}
    for file in files:
        if masked_image(file) is not None or any(part in file.name.lower() for part in _BESIDES):
            continue
        if (other := photographs.setdefault(file.stem, file)) != file:
            raise DataError(f"{other} and {file} have the same name; keep one of the two")
        check_image_header(file)
    if alone := [name for name in masks if name not in photographs]:
        raise DataError(
            f"{masks[alone[0]].files[0]} has no photograph {alone[0]} beside it or in another folder of {source}; "
            f"{len(alone)} of {len(masks)} masks have none, so copy the photographs or delete the masks"
        )
    units = lesions(source)
    return [
        Record(
            subject=name,
            origin=str(file),
            images=Photograph(file),
            unit=units.get(name),
            centre=_CENTRE,
            split=_split(file),
            masks=masks.get(name),
        )
        for name, file in sorted(photographs.items())
    ]


def _split(file: Path) -> str | None:
    folder = file.parent.name.lower()
    return next((split for word, split in _SPLITS.items() if word in folder), None)


READER = Reader(
    read=read_isic,
    text="ISIC segmentation challenges: the folder of the folders with images and masks",
    source="Codella et al., arXiv 1902.03368; images of the ISIC archive",
    by=("centre",),
    photographs=True,
    task="segmentation",
)
"""The reader behind ``monai-fedlora data isic``."""
