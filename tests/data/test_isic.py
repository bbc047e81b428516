"""Masks of dermatoscopic images in the ISIC archive's layout: beside the images, elsewhere, missing or twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.data.isic_files import find_masks, image_files
from monai_fedlora.data.readers.fed_isic2019 import read_fed_isic2019
from monai_fedlora.data.readers.isic import read_isic
from monai_fedlora.errors import DataError
from tests.data.test_fed_isic2019 import FOLDER, line, write

INPUT, TRUTH = "ISIC2018_Task1-2_{}_Input", "ISIC2018_Task1_{}_GroundTruth"


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 * np.eye(40, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path, photograph) -> Path:
    for number, part in enumerate(("Training", "Training", "Validation", "Test")):
        photograph(tmp_path / INPUT.format(part) / f"ISIC_{number}.jpg")
        mask(tmp_path / TRUTH.format(part) / f"ISIC_{number}_segmentation.png")
    mask(tmp_path / TRUTH.format("Training") / "ISIC_1_attribute_streaks.png")
    return tmp_path


def test_images_have_their_masks_and_the_split_of_their_folder(root) -> None:
    (root / "metadata.csv").write_text("isic_id,lesion_id\nISIC_0,IL_7\nISIC_1,IL_7\nISIC_2,\n")

    records = read_isic(root)

    assert [(r.subject, r.split, r.unit, r.centre, r.group) for r in records] == [
        ("ISIC_0", "training", "IL_7", "isic", None),
        ("ISIC_1", "training", "IL_7", "isic", None),
        ("ISIC_2", "validation", None, "isic", None),
        ("ISIC_3", "test", None, "isic", None),
    ]
    assert all(r.masks is not None and r.masks.values == {"lesion": 255} for r in records)
    assert records[3].masks.files == (root / TRUTH.format("Test") / "ISIC_3_segmentation.png",)


def test_masks_may_lie_beside_their_images_and_some_images_have_none(tmp_path, photograph) -> None:
    for name in ("ISIC_5", "ISIC_6"):
        photograph(tmp_path / f"{name}.jpg")
    beside = mask(tmp_path / "ISIC_5_Segmentation.png")  # as ISIC 2016 spells it
    found = {r.subject: r.masks.files if r.masks else None for r in read_isic(tmp_path)}
    assert found == {"ISIC_5": (beside,), "ISIC_6": None}


def test_what_cannot_be_paired_is_named(root, photograph) -> None:
    extra = mask(root / "more" / "ISIC_0_segmentation.png")
    with pytest.raises(DataError, match=r"ISIC_0_segmentation\.png and .*ISIC_0_segmentation\.png are both masks of"):
        read_isic(root)
    extra.rename(root / "more" / "ISIC_9_segmentation.png")
    with pytest.raises(DataError, match=r"ISIC_9_segmentation\.png has no photograph ISIC_9 .*1 of 5 masks"):
        read_isic(root)
    photograph(root / "more" / "ISIC_9.png")
    photograph(root / "ISIC_9.jpg")
    with pytest.raises(DataError, match=r"ISIC_9\.jpg and .*ISIC_9\.png have the same name"):
        read_isic(root)


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_masks_is_refused(tmp_path, folder) -> None:
    with pytest.raises(DataError, match=r"has no mask of a lesion, a file like ISIC_0000000_segm"):
        read_isic(tmp_path / folder)


def test_a_cut_off_mask_is_named(root) -> None:
    broken = root / TRUTH.format("Test") / "ISIC_3_segmentation.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=r"ISIC_3_segmentation\.png is not a JPEG, PNG or TIFF file"):
        find_masks(image_files(root))


def test_fed_isic2019_takes_masks_of_the_images_that_have_some(tmp_path, photograph) -> None:
    for name in ("ISIC_1", "ISIC_2"):
        photograph(tmp_path / FOLDER / f"{name}.jpg")
    write(tmp_path, [line("ISIC_1", 0), line("ISIC_2", 1)])
    file = mask(tmp_path / "HAM10000_segmentations_lesion_tschandl" / "ISIC_2_segmentation.png")
    mask(file.with_name("ISIC_77_segmentation.png"))
    found = {r.subject: r.masks.files if r.masks else None for r in read_fed_isic2019(tmp_path)}
    assert found == {"ISIC_1": None, "ISIC_2": (file,)}
