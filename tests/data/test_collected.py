"""Cases of a Python program are read once, checked, and named in every error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import CacheDataset, MetaTensor
from monai.transforms import LoadImaged, RandFlipd, ScaleIntensityd
from torch.utils.data import DataLoader, Dataset, TensorDataset

from monai_fedlora.data.collected import Item, collect, read_part
from monai_fedlora.errors import DataError

IMAGES = np.arange(4 * 12, dtype=np.float64).reshape(4, 1, 3, 4)
LABELS = [0, 1, 1, 0]


def read(part: Any, **changes: Any) -> list[Item]:
    return read_part(part, **{"site": "north", "split": "training", **changes})


def as_dictionaries() -> list[dict[str, Any]]:
    return [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)]


@pytest.mark.parametrize(
    "part",
    [
        (IMAGES, LABELS),
        (torch.from_numpy(IMAGES), torch.tensor(LABELS)),
        (list(IMAGES.astype("float16")), np.array(LABELS, dtype=np.uint8)),
        (IMAGES.astype("int16"), [float(label) for label in LABELS]),
        (MetaTensor(IMAGES), np.array(LABELS)[:, None]),
        as_dictionaries(),
        [(image, label) for image, label in zip(IMAGES, LABELS, strict=True)],
        TensorDataset(torch.from_numpy(IMAGES), torch.tensor(LABELS)),
        CacheDataset(as_dictionaries(), [ScaleIntensityd("image", minv=None, maxv=None, factor=0.0)], progress=False),
    ],
)
def test_every_way_of_holding_cases_gives_the_same(part: Any) -> None:
    found = read(part)
    assert [item.entries["label"] for item in found] == LABELS
    assert all(item.subject is None for item in found)
    for item, image in zip(found, IMAGES, strict=True):
        assert type(item.image) is torch.Tensor
        torch.testing.assert_close(item.image, torch.tensor(image, dtype=torch.float32))


def test_subjects_come_with_arrays_and_with_dictionaries() -> None:
    subjects = ["a", "a", 7, 8]
    listed = [{**case, "subject": subject} for case, subject in zip(as_dictionaries(), subjects, strict=True)]
    for part in ((IMAGES, LABELS, subjects), listed):
        assert [item.subject for item in read(part)] == ["a", "a", "7", "8"]


def test_a_part_that_is_not_there_has_no_case() -> None:
    assert read(None) == read(([], [])) == read([]) == []


def test_files_are_read_by_the_transform(tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES):
        np.save(tmp_path / f"{number}.npy", image)
    part = [{"image": tmp_path / f"{number}.npy", "label": label} for number, label in enumerate(LABELS)]
    found = read(part, transform=[LoadImaged("image", reader="NumpyReader", image_only=True)])
    assert all(
        torch.equal(item.image, torch.tensor(i, dtype=torch.float32)) for item, i in zip(found, IMAGES, strict=True)
    )
    with pytest.raises(DataError, match=r"training case 0 is the file .*0\.npy.*give transform="):
        read(part)
    with pytest.raises(DataError, match=r"training case 0 cannot be transformed"):
        read([{"image": str(tmp_path / "9.npy"), "label": 0}], transform=LoadImaged("image"))


def test_a_transform_that_computes_in_place_leaves_what_the_user_holds_alone() -> None:
    def shifted(case: dict[str, Any]) -> dict[str, Any]:
        case["image"] += 100
        return case

    held, listed = IMAGES.copy(), as_dictionaries()
    for part in ((held, LABELS), listed, listed):
        assert [int(item.image[0, 0, 0]) for item in read(part, transform=shifted)] == [100, 112, 124, 136]
    assert np.array_equal(held, IMAGES)


class Noisy(Dataset):
    """A data set that draws another image each time."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(1, 3, 4), index


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ((IMAGES, LABELS[:3]), "4 images, 3 labels"),
        ((IMAGES, LABELS, ["a"]), "4 images, 4 labels, 1 subjects"),
        ((IMAGES,), "is a tuple of 1"),
        (7, "is a int"),
        ({"image": IMAGES, "label": LABELS}, "is a dict"),
        (DataLoader(TensorDataset(torch.from_numpy(IMAGES), torch.tensor(LABELS))), "is a DataLoader; .* its dataset"),
        ([7], "holds a int"),
        ([{"image": IMAGES[0]}], "has no label"),
        ((IMAGES, [0, 1, 0.5, 0]), "case 2 has the label '0.5'"),
        ((IMAGES, ["NOR"] * 4), "case 0 has the label 'NOR'"),
        ((IMAGES, np.eye(4)), r"case 0 has the label '\[1"),
        ((np.where(IMAGES == 14, np.nan, IMAGES), LABELS), "case 1 holds NaN"),
        ((IMAGES + 1j, LABELS), "complex"),
        ((IMAGES[:, 0, 0], LABELS), r"shape \(4,\)"),
        ((["x", "y"], [0, 1]), "is the file x"),
        (Noisy(), "another image each time"),
        (CacheDataset(as_dictionaries(), [RandFlipd("image", prob=0.5)], progress=False), "RandFlipd, which is random"),
    ],
)
def test_what_cannot_be_a_case_is_named_with_its_site(part: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"^north: .*{said}"):
        read(part)


def test_a_random_transform_is_refused() -> None:
    with pytest.raises(DataError, match=r"north: .*RandFlipd, which is random.*augmentation="):
        read((IMAGES, LABELS), transform=[RandFlipd("image", prob=0.5)])


def parts(**changes: Any) -> dict[str, list[Item]]:
    return {"training": read((IMAGES, LABELS)), "validation": [], "test": read((IMAGES, LABELS)), **changes}


def test_cases_are_listed_by_split_with_their_subjects() -> None:
    training = read((IMAGES, LABELS, ["a", "a", "b", "c"]))
    listed, items = collect(parts(training=training), site="north", classes=("no", "yes"), images="real")
    assert listed.counts("training") == (2, 2) and listed.counts("validation") == (0, 0)
    assert [case.unit for case in listed.training] == ["a", "a", "b", "c"]
    assert [case.group for case in listed.test] == ["no", "yes", "yes", "no"]
    assert len({case.subject for _, case in listed.all_cases()}) == 8
    assert listed.origin.kind == "real"
    assert [item["label"] for item in items["training"]] == LABELS
    assert [item["subject"] for item in items["training"]] == ["a", "a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": []}, "north has no training case"),
        ({"test": read((IMAGES, [0, 1, 2, 0]))}, "test case 2 has the label 2, and there are 2 classes"),
        ({"training": read((IMAGES, [1, 2, 1, 2]))}, "count labels from 0"),
        ({"training": read((IMAGES, [0, -1, 1, 0]))}, "has the label -1"),
        ({"validation": read((IMAGES[:, :, :2], LABELS))}, r"validation case 0 is an image of shape \(1, 2, 4\)"),
        (
            {"training": read((IMAGES, LABELS, list("abcd"))), "test": read((IMAGES, LABELS, list("efgb")))},
            "subject 'b' has cases in training and in test",
        ),
    ],
)
def test_cases_that_do_not_go_together_are_refused(changes: dict[str, list[Item]], said: str) -> None:
    with pytest.raises(DataError, match=rf"north.*{said}|{said}"):
        collect(parts(**changes), site="north", classes=("no", "yes"))


def test_an_image_in_two_parts_is_told_of_and_one_twice_in_one_part_is_not(caplog: pytest.LogCaptureFixture) -> None:
    other = IMAGES + 100
    other[2, 0, 1, 1] = 0.5  # differs in one value alone
    train, test = np.concatenate([IMAGES[:1], IMAGES]), np.concatenate([other, IMAGES[3:]])
    found = {"training": read((train, [0, *LABELS])), "validation": read((other, LABELS)), "test": []}
    near = np.array(other)
    near[2, 0, 1, 1] = 0.75
    collect({**found, "test": read((near[2:3], LABELS[:1]))}, site="north", classes=("no", "yes"))
    assert caplog.text == ""
    collect({**found, "test": read((test[3:], LABELS[:2]))}, site="north", classes=("no", "yes"))
    said = sorted(record.getMessage() for record in caplog.records)
    assert len(said) == 2
    assert "north: 1 of 2 test images are training images too, equal to the bit (case 1 is case 4 there)" in said[0]
    assert "north: 1 of 2 test images are validation images too, equal to the bit (case 0 is case 3 there)" in said[1]


@given(labels=st.lists(st.integers(-2, 4), min_size=1, max_size=6), classes=st.integers(2, 4))
def test_labels_are_accepted_if_and_only_if_they_are_classes(labels: list[int], classes: int) -> None:
    training = read((np.zeros((len(labels), 1, 2, 2)), labels))
    names = tuple(map(str, range(classes)))
    if all(0 <= label < classes for label in labels):
        listed, _ = collect({"training": training}, site="s", classes=names)
        assert [case.label for case in listed.training] == labels
    else:
        with pytest.raises(DataError, match="s: training case"):
            collect({"training": training}, site="s", classes=names)
