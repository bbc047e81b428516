"""What runs keep for each other changes nothing but the time they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad, ScaleIntensityd, SpatialPadd
from PIL import Image
from torch.nn import functional

from monai_fedlora.engines import memory as module
from monai_fedlora.engines.config import preprocessing
from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.frozen import FrozenPrefix
from monai_fedlora.engines.memory import Memory, active_memory, fingerprint, size_of, using
from tests.engines.test_features import Named, count_prefixes, network

CASES = [{"image": torch.rand(1, 4, 4), "label": i % 2, "subject": f"p{i}"} for i in range(3)]


@dataclass
class Settings:
    """A class of somebody's own."""

    value: int


def halve(image: torch.Tensor) -> torch.Tensor:
    return image / 2


def test_a_result_is_computed_once_and_its_time_counted() -> None:
    memory, calls = Memory(), []
    for _ in range(3):
        assert memory.recall("key", lambda: calls.append(1) or "value") == "value"
    assert calls == [1]
    before = memory.seconds
    assert before > 0
    memory.recall("key", lambda: "another")
    assert memory.seconds == before


def test_a_memory_is_in_use_inside_its_context_alone() -> None:
    outer, inner = Memory(), Memory()
    assert active_memory() is None
    with using(outer), pytest.raises(KeyError):
        with using(inner):
            assert active_memory() is inner
        assert active_memory() is outer
        raise KeyError
    assert active_memory() is None


def make(size: int = 4, low: float = 0.0) -> Compose:
    return Compose(
        [ScaleIntensityd(keys="image", minv=low, maxv=1.0), SpatialPadd(keys="image", spatial_size=(size, 4))]
    )


def test_transforms_that_were_built_alike_have_one_fingerprint() -> None:
    assert fingerprint(make()) == fingerprint(make())
    different = {fingerprint(each) for each in (make(), make(size=5), make(low=0.1), make().transforms, Compose([]))}
    assert len(different) == 5
    assert None not in different


def test_what_cannot_be_described_has_no_fingerprint() -> None:
    assert fingerprint([Lambdad(keys="image", func=lambda image: image)]) is None
    assert fingerprint(open) is None
    assert fingerprint("a".upper) is None
    assert len({fingerprint(each) for each in (torch.tanh, torch.sigmoid, functional.gelu)} - {None}) == 3
    assert fingerprint([Lambdad(keys="image", func=halve)]) is None  # its code may change, and its name stay
    assert fingerprint([Lambdad(keys="image", func=functional.gelu)]) is not None
    assert fingerprint(Settings(1)) is None
    assert fingerprint(MetaTensor(torch.ones(1, 2))) != fingerprint(
        MetaTensor(torch.ones(1, 2), affine=2 * torch.eye(4))
    )


@pytest.mark.parametrize("size", ["small", "vit_demo"])
def test_the_shipped_preprocessing_has_one_fingerprint_before_and_after_use(size: str, tmp_path: Path) -> None:
    item: dict[str, Any] = {}
    if size == "small":
        for frame in ("ed", "es"):
            voxels = np.arange(24 * 24 * 6, dtype=np.int16).reshape(24, 24, 6)
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([3, 3, 10, 1])), tmp_path / f"{frame}.nii.gz")
            item[frame] = str(tmp_path / f"{frame}.nii.gz")
    else:
        Image.linear_gradient("L").resize((40, 36)).convert("RGB").save(tmp_path / "a.png")
        item["image"] = str(tmp_path / "a.png")
    transforms = preprocessing(size=size)
    before = fingerprint(transforms)
    assert transforms(item)["image"].ndim in (3, 4)
    assert fingerprint(transforms) == before == fingerprint(preprocessing(size=size))
    assert before is not None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(values, values)
def test_different_settings_have_different_fingerprints(one: object, other: object) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (repr(one) == repr(other))


def test_the_values_of_arrays_count() -> None:
    zeros = np.zeros((2, 3), np.float32)
    others = [zeros.astype(np.float64), zeros.reshape(3, 2), zeros + 1, torch.zeros(2, 3), [zeros]]
    assert len({fingerprint(value) for value in (zeros, *others)}) == 6
    assert fingerprint(zeros) == fingerprint(zeros.copy())


def test_data_sets_share_cases_that_are_preprocessed_alike() -> None:
    alone = CaseDataset(CASES, make())
    with using(Memory()) as memory:
        first, second = CaseDataset(CASES, make()), CaseDataset(CASES[1:], make())
        other, relabelled = CaseDataset(CASES, make(size=6)), CaseDataset([{**CASES[0], "label": 1}], make())
    assert second[0]["image"] is first[1]["image"]
    assert other[0]["image"].shape == (1, 6, 4)
    assert relabelled[0]["label"] == 1
    assert memory.seconds > 0
    for i in range(len(CASES)):
        assert torch.equal(alone[i]["image"], first[i]["image"])


@pytest.mark.parametrize(
    "build",
    [
        lambda: CaseDataset(CASES, [Lambdad(keys="image", func=lambda image: image)]),
        lambda: CaseDataset([{**case, "note": object()} for case in CASES], make()),
    ],
    ids=["a transform nobody can describe", "a case nobody can describe"],
)
def test_a_data_set_that_cannot_share_reads_its_own_cases(build: Callable[[], CaseDataset]) -> None:
    with using(Memory()) as memory:
        one = build()
        assert len(one) == len(CASES)
        assert one[0]["image"].shape == (1, 4, 4)
    assert memory.seconds == 0


def test_inferers_share_features_behind_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    images, first, second = torch.rand(2, 2, 16, 16, 2), network(), network("fedit")
    calls = [count_prefixes(each, monkeypatch) for each in (first, second)]
    expected = FrozenInferer()(Named(images), second)
    with using(Memory()):
        one, other = FrozenInferer(), FrozenInferer()
    one(Named(images), first)
    assert torch.equal(other(Named(images), second), expected)
    assert [len(each) for each in calls] == [2, 2]  # those of the second are from the inferer of its own


def test_features_behind_other_weights_are_not_taken() -> None:
    images, first, second = torch.rand(2, 2, 16, 16, 2), network(), network()
    with torch.no_grad():
        next(second.blocks[0].parameters()).add_(1)
    with using(Memory()):
        one, other = FrozenInferer(), FrozenInferer()
    one(Named(images), first)
    assert torch.equal(other(Named(images), second), FrozenInferer()(Named(images), second))


def test_the_digest_of_the_frozen_part_ignores_what_comes_after_it() -> None:
    built = network()
    before = FrozenPrefix(built, 1).digest
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.startswith(("encoder.blocks.1.", "encoder.blocks.2.", *built.head_prefixes)):
                parameter.add_(1)
    assert FrozenPrefix(built, 1).digest == before
    assert FrozenPrefix(built, 2).digest != before
    with torch.no_grad():
        next(iter(built.stem.parameters())).add_(1)
    assert FrozenPrefix(built, 1).digest != before


def test_memories_of_a_process_share_one_room_and_what_came_first_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_all", WeakSet())
    monkeypatch.setattr(module, "room_in_memory", lambda held: 1000)
    one, other = Memory(), Memory()
    made: list[int] = []

    def make(number: int) -> dict[str, torch.Tensor]:
        made.append(number)
        return {"a": torch.zeros(100), "b": torch.zeros(0)}

    for _ in range(2):
        for number in range(4):
            (one, other)[number % 2].recall(number, lambda number=number: make(number))
    assert made == [0, 1, 2, 3, 2, 3]
    assert one.left_out == {2: 400} and other.left_out == {3: 400}
    assert one.nbytes == other.nbytes == 400
    assert one.seconds > 0
    del other
    third = Memory()
    third.recall("new", lambda: make(4))
    assert "new" in third


def test_a_size_is_that_of_all_tensors_and_arrays() -> None:
    assert size_of({"a": [torch.zeros(3), np.zeros((2, 2))], "b": ("text", None, 3)}) == 12 + 32
