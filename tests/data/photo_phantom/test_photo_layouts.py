from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from monai_fedlora.data.phantom.cohort import machines_named
from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS
from monai_fedlora.data.photo_phantom.photo_layouts import (
    plan_fed_isic2019,
    plan_feddrg,
    write_fed_isic2019,
    write_feddrg,
)
from monai_fedlora.data.readers.fed_isic2019 import read_fed_isic2019
from monai_fedlora.data.readers.feddrg import read_feddrg
from monai_fedlora.errors import ConfigError


def isic(root: Path, images: int = 36, seed: int = 0, codes: str = "ABCDEF") -> Path:
    members = plan_fed_isic2019(images, machines_named(DERMATOSCOPES, codes, word="camera"), seed)
    write_fed_isic2019(root, members, size=32, progress=iter)
    return root


def drg(root: Path, images: int = 36, seed: int = 0, codes: str = "ABCDEF") -> Path:
    write_feddrg(
        root, plan_feddrg(images, machines_named(FUNDUS_CAMERAS, codes, word="camera"), seed), size=32, progress=iter
    )
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("write", [isic, drg])
def test_the_same_seed_writes_the_same_bytes(write, tmp_path) -> None:
    first = contents(write(tmp_path / "a", 12))
    assert first == contents(write(tmp_path / "b", 12))
    assert first != contents(write(tmp_path / "c", 12, seed=1))


@pytest.mark.slow
def test_fed_isic2019_is_read_as_planned(tmp_path) -> None:
    members = plan_fed_isic2019(36, machines_named(DERMATOSCOPES, "ABCDEF", word="camera"), 0)
    records = read_fed_isic2019(isic(tmp_path))
    assert [record.subject for record in records] == [member.name for member in members]
    for record, member in zip(records, members, strict=True):
        assert record.group == member.group and record.unit == member.unit and record.split == member.split
        assert record.centre == str(member.camera.centre)
        with Image.open(record.files()[0]) as picture:
            assert picture.mode == "RGB" and min(picture.size) == 32


def test_two_images_of_a_lesion_lie_in_one_fold() -> None:
    members = plan_fed_isic2019(600, machines_named(DERMATOSCOPES, "ABCDEF", word="camera"), 0)
    folds: dict[str, set[str]] = {}
    for member in members:
        folds.setdefault(member.unit, set()).add(member.split)
    images = Counter(member.unit for member in members)
    assert set(images.values()) == {1, 2} and all(len(splits) == 1 for splits in folds.values())
    shots = Counter((member.unit, member.shot) for member in members)
    assert set(shots.values()) == {1}
    training = sum(member.split == "training" for member in members)
    assert training == pytest.approx(480, abs=25) and {member.split for member in members} == {"training", "test"}


def test_fed_isic2019_keeps_each_clinics_referral() -> None:
    members = plan_fed_isic2019(600, machines_named(DERMATOSCOPES, "BD", word="camera"), 0)
    for camera in machines_named(DERMATOSCOPES, "BD", word="camera"):
        groups = Counter(member.group for member in members if member.camera is camera)
        whole = sum(camera.shares.values())
        assert sum(groups.values()) == 300
        assert all(abs(groups[name] - 300 * share / whole) < 1 for name, share in camera.shares.items())


@pytest.mark.slow
def test_feddrg_is_read_as_planned(tmp_path) -> None:
    members = plan_feddrg(36, machines_named(FUNDUS_CAMERAS, "ABCDEF", word="camera"), 0)
    by_path = {f"{m.camera.domain}/{m.group}/{m.name}{m.camera.suffix}": m for m in members}
    records = read_feddrg(drg(tmp_path))
    assert sorted(by_path) == [record.subject for record in records]
    for record in records:
        member = by_path[record.subject]
        assert (record.group, record.split, record.centre) == (member.group, member.split, member.camera.domain)
        with Image.open(record.files()[0]) as picture:
            assert picture.mode == "RGB" and min(picture.size) == 32


@pytest.mark.slow
def test_two_eyes_of_a_patient_lie_in_one_list_and_are_known_as_such(tmp_path) -> None:
    records = read_feddrg(drg(tmp_path, 45, codes="BCF"))
    splits: dict[str, set[str | None]] = {}
    for record in records:
        if record.unit:
            splits.setdefault(record.unit, set()).add(record.split)
    eyes = Counter(record.unit for record in records if record.unit)
    assert 2 in eyes.values() and all(len(found) == 1 for found in splits.values())
    assert {unit.split("/")[0] for unit in eyes} == {"DEEPDR", "RLDR"}


@pytest.mark.parametrize("codes", ["G", "AA", ""])
def test_impossible_cameras_are_refused(codes) -> None:
    with pytest.raises(ConfigError, match="camera"):
        machines_named(DERMATOSCOPES, codes, word="camera")
