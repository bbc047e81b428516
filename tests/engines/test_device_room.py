"""What kept features may take of a GPU, told by patched numbers of a device."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.engines.device_room import room_on
from monai_fedlora.engines.on_device import OnDevice
from monai_fedlora.errors import ConfigError

GPU, GB = torch.device("cuda:0"), 10**9


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    numbers = {"free": 80 * GB, "reserved": 0, "allocated": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (numbers["free"], 141 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: numbers["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: numbers["allocated"])
    monkeypatch.delenv("MONAI_FEDLORA_GPU_FEATURES", raising=False)
    monkeypatch.delenv("MONAI_FEDLORA_GPU_PROCESSES", raising=False)
    return numbers


def test_it_is_a_quarter_of_what_is_free_or_unused_and_nothing_on_a_processor(free: dict[str, int]) -> None:
    assert room_on(torch.device("cpu")) == 0
    assert room_on(GPU) == 20 * GB
    free.update(free=60 * GB, reserved=21 * GB, allocated=1 * GB)  # a step has ended: PyTorch holds its memory, unused
    assert room_on(GPU) == 20 * GB


def test_what_is_kept_already_counts_as_room(free: dict[str, int]) -> None:
    kept = OnDevice(GPU, room=room_on)
    kept._blocks.append(torch.empty(8 * GB, dtype=torch.uint8, device="meta"))  # as it would lie there
    free.update(free=72 * GB, reserved=8 * GB, allocated=8 * GB)
    assert room_on(GPU) == 20 * GB


@pytest.mark.parametrize(
    ("share", "number", "expected"), [("", "4", 5), ("0.5", "", 40), ("0.1", "2", 4), ("0", "3", 0)]
)
def test_the_site_chooses_the_share_and_how_many_share_it(
    free: dict[str, int], monkeypatch: pytest.MonkeyPatch, share: str, number: str, expected: int
) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_GPU_FEATURES", share)
    monkeypatch.setenv("MONAI_FEDLORA_GPU_PROCESSES", number)
    assert room_on(GPU) == expected * GB


def test_processes_that_begin_one_after_the_other_take_no_more_than_the_share_together(
    free: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_GPU_PROCESSES", "4")
    taken = []
    for _ in range(4):
        taken.append(room_on(GPU))
        free["free"] -= taken[-1]
    assert 15 * GB < sum(taken) <= 20 * GB


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(("MONAI_FEDLORA_GPU_FEATURES", text) for text in ("1", "-0.1", "half", "nan")),
        *(("MONAI_FEDLORA_GPU_PROCESSES", text) for text in ("0", "1.5", "all", "nan")),
    ],
)
def test_what_is_no_such_number_is_refused(
    free: dict[str, int], monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=variable):
        room_on(GPU)
