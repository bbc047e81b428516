from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureTyped, Lambdad, RandGaussianNoised, Transform

from monai_fedlora.engines import store as module
from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.store import Store, entries
from monai_fedlora.environment import CACHE_LIMIT, CACHE_MEMORY
from monai_fedlora.errors import ConfigError, DataError


class Read(Transform):
    """Read a number from a file."""

    __module__ = "monai_fedlora.test"
    reads: ClassVar[list[str]] = []

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        Read.reads.append(case["image"])
        text = Path(case["image"]).read_text()
        if not text:
            raise DataError(f"{case['image']} is empty")
        return {**case, "image": torch.full((2, 3), float(text) * self.factor)}


@pytest.fixture(autouse=True)
def _nothing_read() -> None:
    Read.reads.clear()


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, Any]]:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(str(number + 1))
    return [{"image": str(tmp_path / f"{n}.txt"), "label": n % 2, "subject": f"p{n}"} for n in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "frozen" / "site-1"


def build(cases: list, folder: Path, transform: Any = None, **settings: Any) -> CaseDataset:
    store = Store(folder, limit=10**9)
    return CaseDataset(cases, Compose([Read()]) if transform is None else transform, store=store, **settings)


def contents(data: CaseDataset) -> list[dict[str, Any]]:
    return [
        {key: getattr(value, "tolist", lambda v=value: v)() for key, value in data[n].items()} for n in range(len(data))
    ]


def test_a_later_process_finds_the_cases_as_they_were_without_reading_a_file(cases: list, folder: Path) -> None:
    first = contents(build(cases, folder))
    assert first == contents(CaseDataset(cases, Compose([Read()])))
    Read.reads.clear()
    assert contents(build(cases, folder)) == first
    assert Read.reads == []


def test_a_file_or_transform_that_changed_is_read_anew(cases: list, folder: Path) -> None:
    build(cases, folder)
    Path(cases[1]["image"]).write_text("9")
    os.utime(cases[1]["image"], ns=(1, 1))
    Read.reads.clear()
    assert build(cases, folder)[1]["image"][0, 0] == 9
    assert Read.reads == [cases[1]["image"]]
    assert build(cases, folder, Compose([Read(2.0)]))[0]["image"][0, 0] == 2


def test_a_file_in_the_place_of_another_is_read_anew_though_size_and_time_are_the_same(
    cases: list, folder: Path
) -> None:
    path = Path(cases[1]["image"])
    before = path.stat()
    build(cases, folder)
    path.write_text("9")
    while path.stat().st_ctime_ns == before.st_ctime_ns or path.stat().st_mtime_ns != before.st_mtime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert build(cases, folder)[1]["image"][0, 0] == 9


def test_a_case_with_another_label_is_another_case(cases: list, folder: Path) -> None:
    build(cases, folder)
    assert build([{**cases[0], "label": 1}], folder)[0]["label"] == 1


def test_cases_that_cannot_be_written_stay_in_memory(
    cases: list, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_replace", fail)
    data = build(cases, folder)
    Read.reads.clear()
    assert contents(data) == contents(data)
    assert Read.reads == []


@pytest.mark.parametrize("stored", [False, True])
def test_cases_without_room_are_read_whenever_they_are_used_and_that_is_said_once(
    cases: list, folder: Path, stored: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = contents(CaseDataset(cases, Compose([Read()])))
    monkeypatch.setenv(CACHE_MEMORY, "0")
    Read.reads.clear()
    store = Store(folder, limit=10) if stored else None
    data = CaseDataset(cases, Compose([Read()]), store=store)
    assert [data.view(number).image().tolist() for number in range(3)] == [item["image"] for item in expected]
    assert contents(data) == expected
    assert Read.reads[-6:] == 2 * [case["image"] for case in cases]
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("no room for preprocessed cases (3 of 3, 0.0 MB)")
    assert CACHE_MEMORY in said and (CACHE_LIMIT in said) == stored


def test_arrays_that_are_given_take_no_room(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(CACHE_MEMORY, "0")
    items = [{"image": torch.rand(2, 3), "mask": np.zeros((2, 3))}]
    for transform in ([], [EnsureTyped(["image"])]):
        assert torch.equal(torch.as_tensor(CaseDataset(items, transform)[0]["image"]), items[0]["image"])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_an_unusable_file_is_named_at_once(cases: list, folder: Path) -> None:
    Path(cases[2]["image"]).write_text("")
    with pytest.raises(DataError, match=r"2\.txt is empty"):
        build(cases, folder)


@pytest.mark.parametrize(
    "transform",
    [
        Compose([Read(), Lambdad("image", lambda image: image)]),
        Compose([Read(), Lambdad("subject", str.upper)]),
    ],
    ids=["a step nobody can describe", "a value that is no tensor"],
)
def test_what_a_store_cannot_know_is_kept_in_memory(cases: list, folder: Path, transform: Any) -> None:
    assert contents(build(cases, folder, transform)) == contents(CaseDataset(cases, transform))
    assert list(entries(folder.parent)) == []


def test_views_take_turns_in_the_epochs_and_are_those_of_free_augmentation(cases: list, folder: Path) -> None:
    noise = [RandGaussianNoised("image", prob=1.0)]
    free = CaseDataset(cases, Compose([Read()]), augmentation=noise, seed=3)
    fixed = build(cases, folder, augmentation=noise, seed=3, views=2)
    seen = []
    for epoch in range(1, 6):
        fixed.set_epoch(epoch)
        free.set_epoch(1 + (epoch - 1) % 2)
        assert contents(fixed) == contents(free)
        seen.append(contents(fixed)[0]["image"])
    assert seen[0] == seen[2] == seen[4] != seen[1] == seen[3]


@pytest.mark.parametrize("views", [-1, 1.5, True])
def test_a_number_of_views_that_makes_no_sense_is_refused(cases: list, views: Any) -> None:
    with pytest.raises(ConfigError, match="augmented_views"):
        CaseDataset(cases, Compose([Read()]), views=views)
