"""The stages for a GPU, at a tiny size on a processor."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _gpu import correct, step, timing
from _gpu.place import Place, Training, trainer

from tests.pretended_gpu import PretendedGPU

GPU = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(device="cpu", tiny=True, folder=tmp_path)


def run(*arguments: str) -> tuple[int, list[dict]]:
    done = subprocess.run(
        [sys.executable, str(GPU), "--device", "cpu", *arguments], capture_output=True, text=True, timeout=600
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_every_stage_writes_its_line(tmp_path: Path) -> None:
    output = tmp_path / "gpu.jsonl"
    code, rows = run("--seconds", "2000", "--output", str(output))
    assert code == 0, rows
    assert [row["stage"] for row in rows] == [
        "machine",
        "correct",
        "step",
        "cached",
        "compiled",
        "repeats",
        "processes",
        "clinic",
    ]
    assert [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()] == rows
    found = {row["stage"]: row.get("result") for row in rows}
    assert {row["precision"] for row in found["step"]["steps"]} == set(step.PRECISIONS)
    assert all(row["equal_bits"] for row in found["repeats"]["runs"])
    assert found["clinic"]["works_after_a_bad_image"]


@pytest.mark.slow
def test_a_stage_that_fails_or_has_no_time_says_why() -> None:
    spec = importlib.util.spec_from_file_location("benchmark_gpu", GPU)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    row = module.in_process("nothing", "cpu", True, 60)
    assert row["status"] == "failed"
    assert "No module named '_gpu.nothing'" in row["said"][-1]
    assert module.in_process("correct", "cpu", True, 0.01)["status"] == "time limit"


def test_another_result_than_the_processors_is_seen(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    trained = correct.trained

    def wrong(training: Training, place: Place, *, device: str) -> tuple[dict[str, torch.Tensor], list[float]]:
        tensors, losses = trained(training, place, device="cpu")
        return {name: 1.02 * value for name, value in tensors.items()} if device == "other" else tensors, losses

    monkeypatch.setattr(correct, "trained", wrong)
    assert correct.compared("fedit", place)["equal"]
    other = Place(device="other", tiny=True, folder=place.folder)
    row = correct.compared("fedit", other)
    assert not row["equal"]
    assert row["tensors_apart"] == pytest.approx(0.02, rel=1e-6)


def test_operations_and_bytes_of_a_product_are_those_of_the_equation() -> None:
    one, other = torch.rand(4, 8), torch.rand(8, 16)
    with timing.Operations(operations_per_second=1e3, bytes_per_second=1e6) as counted:
        product = one @ other
        product.T  # noqa: B018  (a view, which moves nothing)
    assert counted.operations == 2 * 4 * 8 * 16
    assert counted.bytes == 4 * (4 * 8 + 8 * 16 + 4 * 16)
    assert counted.seconds == pytest.approx(1.024)


@pytest.mark.slow
def test_training_on_a_gpu_is_compared_with_training_on_a_processor(
    gpu: PretendedGPU, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)  # CUDA's own count of waits
    place = Place(device="cuda:0", tiny=True, folder=tmp_path)
    with gpu.watched() as seen:
        assert correct.compared("dual_lora", place)["equal"]
    assert seen.to_device
    work = step.cached_step(trainer(Training(cases=2, batch_size=2), place), 2, place)
    with gpu.watched() as seen:
        work()
    assert not seen.waits
