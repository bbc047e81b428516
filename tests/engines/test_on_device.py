from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from monai_fedlora.engines.joining import joined
from monai_fedlora.engines.on_device import OnDevice, held_on

CPU, META = torch.device("cpu"), torch.device("meta")


class Calls(TorchDispatchMode):
    """Names of the kernels that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def row(value: float, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float16) -> list[torch.Tensor]:
    return [torch.full((1, *shape), value + number, dtype=dtype) for number, shape in enumerate(shapes)]


def test_rows_come_back_as_they_were_whatever_their_types_and_shapes() -> None:
    kept = OnDevice(CPU, room=lambda device: 10**6)
    rows = {
        "one": row(1, (3, 5), (0, 5)),
        "two": row(2, (3, 5), (0, 5)),
        "other shape": row(3, (7,), (1,), (2, 2)),
        "other type": row(4, (3, 5), (0, 5), dtype=torch.float32),
    }
    for key, parts in rows.items():
        assert kept.keep(key, parts) is kept.get(key)
    for key, parts in rows.items():
        for found, part in zip(kept.get(key) or (), parts, strict=True):
            assert found.dtype == part.dtype and torch.equal(found, part)
    assert len(kept) == 4 and kept.get("three") is None


@pytest.mark.parametrize(("room", "fit"), [(0, 0), (100, 1), (255, 2), (10**6, 5)])
def test_they_take_no_more_than_the_room(room: int, fit: int) -> None:
    kept = OnDevice(CPU, room=lambda device: room)
    found = [kept.keep(number, row(number, (4, 12))) for number in range(5)]
    assert [each is not None for each in found] == [number < fit for number in range(5)]
    assert len(kept) == fit and fit * 96 <= kept.nbytes <= room


def test_memory_is_taken_in_few_blocks_and_given_back_at_once() -> None:
    room = [10**9]
    kept = OnDevice(META, room=lambda device: room[0])
    for number in range(200):
        assert kept.keep(number, [torch.empty(1, 2**20, dtype=torch.float16, device=META)]) is not None
    assert 400 * 2**20 <= kept.nbytes <= 800 * 2**20
    assert len(kept._blocks) < 10
    kept.clear()
    room[0] = 0
    assert kept.nbytes == 0 and len(kept) == 0 and kept.get(0) is None
    assert kept.keep(0, row(0, (4,))) is None


def test_all_of_a_process_share_the_room_and_count_what_they_hold() -> None:
    first, second = (OnDevice(META, room=lambda device: 300) for _ in range(2))
    assert first.keep(0, row(0, (4, 12), dtype=torch.float32)) is not None
    assert held_on(META) == first.nbytes + second.nbytes >= 192
    assert second.keep(0, row(0, (4, 12), dtype=torch.float32)) is None
    first.clear()
    second.clear()
    assert held_on(META) == 0
    assert second.keep(0, row(0, (4, 12), dtype=torch.float32)) is not None


def test_what_an_ended_engine_held_makes_room_for_the_next() -> None:
    ended = [OnDevice(META, room=lambda device: 300)]
    ended.append(ended)  # type: ignore[arg-type]  # an engine and its handlers know each other
    assert ended[0].keep(0, row(0, (4, 12), dtype=torch.float32)) is not None
    del ended
    assert OnDevice(META, room=lambda device: 300).keep(0, row(0, (4, 12), dtype=torch.float32)) is not None


def test_a_device_that_has_refused_is_not_asked_for_every_case() -> None:
    asked: list[torch.device] = []
    kept = OnDevice(META, room=lambda device: asked.append(device) or 0)  # type: ignore[func-returns-value]
    for number in range(9):
        assert kept.keep(number, row(number, (4, 12))) is None
    assert asked == [META]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_device_without_memory_keeps_nothing_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    kept, of_an_evaluation = (OnDevice(META, room=lambda device: 10**9) for _ in range(2))
    assert kept.keep(0, row(0, (2**23,))) is not None
    assert of_an_evaluation.keep(0, row(0, (2**23,))) is not None

    def full(*_args: Any, **_options: Any) -> torch.Tensor:
        raise error("CUDA out of memory. Tried to allocate 8.00 MiB.")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", full)
        assert [kept.keep(number, row(number, (2**23,))) for number in range(1, 5)] == [None] * 4
    assert (kept.nbytes, len(kept), kept.get(0)) == (0, 0, None)
    assert of_an_evaluation.nbytes == 0
    assert kept.keep(5, row(5, (4,))) is None
    (record,) = caplog.records
    assert "meta has no memory left" in record.message
    assert "MONAI_FEDLORA_GPU_FEATURES" in record.message
    kept.clear()  # of a site that rests: its next task tries again
    assert kept.keep(6, row(6, (4,))) is not None


def test_another_error_of_the_device_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_options: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    kept, parts = OnDevice(META, room=lambda device: 10**9), row(0, (4,))
    monkeypatch.setattr(torch, "empty", broken)
    with pytest.raises(RuntimeError, match="assert triggered"):
        kept.keep(0, parts)


def test_a_batch_of_kept_rows_is_one_gather_and_one_cast() -> None:
    kept = OnDevice(META, room=lambda device: 10**6)
    rows = [kept.keep(number, row(number, (3, 5))) for number in range(4)]
    with Calls() as calls:
        batch = joined(0, [parts[0] for parts in rows if parts], device=META)
    assert batch.shape == (4, 3, 5) and batch.dtype == torch.float32
    assert [name for name in calls.names if name not in ("promote_types", "empty")] == ["cat", "_to_copy"]


@pytest.mark.parametrize(("away", "kernels"), [(4, ["_to_copy", "_to_copy"]), (2, ["_to_copy", "cat", "_to_copy"])])
def test_what_is_not_on_the_device_goes_there_in_one_copy(away: int, kernels: list[str]) -> None:
    kept = OnDevice(META, room=lambda device: 10**6)
    rows = [row(number, (3, 5)) for number in range(4)]
    for number in range(away, 4):
        rows[number] = list(kept.keep(number, rows[number]) or ())
    with Calls() as calls:
        batch = joined(0, [parts[0] for parts in rows], device=META)
    assert batch.shape == (4, 3, 5) and batch.device == META
    on_the_way = ("promote_types", "empty", "copy_", "unbind", "select", "split")
    assert [name for name in calls.names if not name.startswith(on_the_way)] == kernels


def test_a_row_that_was_too_large_for_the_kept_type_keeps_its_numbers_in_a_batch() -> None:
    rows = [torch.full((1, 3), 1e6), torch.full((1, 3), 0.5, dtype=torch.float16)]
    assert joined(0, rows, device=CPU)[:, 0].tolist() == [1e6, 0.5]


def test_features_of_any_type_make_a_batch_under_autocast(gpu: Any) -> None:
    there = torch.device("cuda:0")
    for types in (["float16"] * 2, ["float16", "float32"], ["bfloat16"] * 2):
        rows = [torch.full((1, 3), 0.5, dtype=getattr(torch, name)).to(there) for name in types]
        with torch.autocast("cuda", dtype=torch.bfloat16):
            batch = joined(0, rows, device=there)
        assert batch.dtype == torch.float32 and batch.cpu().tolist() == [[0.5] * 3] * 2
