"""Finished runs are kept and never done twice; other settings in the same folder are an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.comparison import execute as module
from monai_fedlora.comparison.runner import Task, run_missing, stored_results
from monai_fedlora.comparison.settings import Run
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.files import read_json

MakeTask = Callable[..., Task]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs in the order in which they were done; nothing is trained."""
    names: list[str] = []

    def execute(comparison: Any, run: Run, *, folder: Path, on_progress: Any, **_: Any) -> dict[str, Any]:
        assert folder.is_dir()
        assert torch.get_num_threads() == 1
        names.append(run.name)
        on_progress(0.5)
        if run.method == "fedit" and run.seed == 1:
            raise FedLoraError("diverged")
        return {"identity": comparison.identity(run), "common": comparison.common(), "metrics": []}

    monkeypatch.setattr(module, "execute", execute)
    return names


def test_results_are_kept_one_by_one(make_task: MakeTask, tmp_path: Path, done: list[str]) -> None:
    task = make_task(tmp_path / "out", "dual_lora", "fedavg", seeds=(0, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run_missing(task) == []
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert done == [run.name for run in task.comparison.runs()]
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == sorted(f"{n}.json" for n in done)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["runs"]
    assert list(stored_results(task)) == task.comparison.runs()


def test_a_finished_run_is_not_done_again(make_task: MakeTask, tmp_path: Path, done: list[str]) -> None:
    run_missing(make_task(tmp_path, "dual_lora"))
    run_missing(make_task(tmp_path, "dual_lora", "fedavg", seeds=(0, 1)))
    assert done == ["dual_lora-seed0", "fedavg-seed0", "dual_lora-seed1", "fedavg-seed1"]
    (tmp_path / "runs" / "fedavg-seed0.json").unlink()
    run_missing(make_task(tmp_path, "dual_lora", "fedavg", seeds=(0, 1)))
    assert done[4:] == ["fedavg-seed0"]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"rounds": 2}, "rounds: 1, now 2"),
        ({"data": {"site-1": "1", "site-2": "2", "site-3": "3"}}, "data.site-1"),
        ({"methods": {"dual_lora": {"batch_size": 2, "warmup_epochs": 0, "rank": 4}}}, "rank"),
        ({"methods": {"fedavg": {}}, "local_epochs": 2}, "local_epochs"),
    ],
)
def test_other_settings_in_the_same_folder_are_an_error_that_names_them(
    make_task: MakeTask, tmp_path: Path, done: list[str], changes: dict[str, Any], hint: str
) -> None:
    run_missing(make_task(tmp_path, "dual_lora"))
    before = (tmp_path / "runs" / "dual_lora-seed0.json").read_bytes()
    with pytest.raises(ConfigError, match=hint) as caught:
        run_missing(make_task(tmp_path, "dual_lora", **changes))
    assert "--output" in str(caught.value)
    assert (tmp_path / "runs" / "dual_lora-seed0.json").read_bytes() == before
    assert done == ["dual_lora-seed0"]


def test_a_damaged_result_is_named(make_task: MakeTask, tmp_path: Path, done: list[str]) -> None:
    task = make_task(tmp_path, "dual_lora")
    run_missing(task)
    path = tmp_path / "runs" / "dual_lora-seed0.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(FedLoraError, match="dual_lora-seed0"):
        run_missing(task)


def test_a_run_that_fails_stops_no_other_and_is_tried_again(
    make_task: MakeTask, tmp_path: Path, done: list[str]
) -> None:
    task = make_task(tmp_path, "fedit", "dual_lora", seeds=(0, 1))
    (failure,) = run_missing(task)
    assert (failure.run.name, failure.reason) == ("fedit-seed1", "diverged")
    assert len(done) == 4
    assert len(stored_results(task)) == 3
    run_missing(task)
    assert done[4:] == ["fedit-seed1"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_progress_is_told_run_by_run(make_task: MakeTask, tmp_path: Path, done: list[str]) -> None:
    told: list[tuple[str, float]] = []
    task = make_task(tmp_path, "dual_lora", "fedavg")
    run_missing(task, on_progress=lambda run, share: told.append((run.method, share)))
    assert told == [("dual_lora", 0.5), ("dual_lora", 1.0), ("fedavg", 0.5), ("fedavg", 1.0)]


@pytest.mark.slow
def test_several_processes_give_the_same_results(make_task: MakeTask, tmp_path: Path) -> None:
    """The processes know nothing of a size that is added here, so that the packaged one is used."""
    from monai_fedlora.files import sha256
    from monai_fedlora.resources import demo_weights_path

    backbone = demo_weights_path()
    changes = {"size": "small", "backbone_sha256": sha256(backbone), "seeds": (0, 1)}
    tasks = [
        dataclasses.replace(make_task(tmp_path / name, "dual_lora", "fedit", **changes), backbone=str(backbone))
        for name in ("one", "two")
    ]
    told: list[float] = []
    assert run_missing(tasks[0]) == []
    assert run_missing(tasks[1], workers=2, on_progress=lambda run, share: told.append(share)) == []
    assert told.count(1.0) == 4
    assert len(told) > 4
    for run in tasks[0].comparison.runs():
        one, two = (read_json(task.path(run)) for task in tasks)
        assert one["metrics"] == two["metrics"]
        assert one["scores"] == two["scores"]
