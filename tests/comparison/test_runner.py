"""Finished runs are kept and never done twice; other settings in the same folder are an error."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.comparison import execute as module
from monai_fedlora.comparison import runner
from monai_fedlora.comparison.comparison_settings import Comparison, Run
from monai_fedlora.comparison.runner import Task, run_missing, stored_results
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.files import read_json, write_json

MakeTask = Callable[..., Task]


RAISED: Iterator[BaseException] = iter(())
"""What runs of fedprox fail with, one after the other."""


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs in the order in which they were done; nothing is trained."""
    names: list[str] = []

    def execute(
        comparison: Any, run: Run, *, folder: Path, on_progress: Any, **_: Any
    ) -> tuple[dict[str, Any], list[Any]]:
        assert folder.is_dir()
        assert torch.get_num_threads() == 1
        names.append(run.name)
        on_progress(0.5)
        if run.method == "fedit" and run.seed == 1:
            raise FedLoraError("diverged")
        if run.method == "fedprox":
            raise next(RAISED)
        return {"identity": comparison.identity(run), "common": comparison.common(), "metrics": []}, []

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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"runs", "scores"}
    assert list(stored_results(task)) == task.comparison.runs()


def test_a_finished_run_is_not_done_again(make_task: MakeTask, tmp_path: Path, done: list[str]) -> None:
    run_missing(make_task(tmp_path, "dual_lora"))
    run_missing(make_task(tmp_path, "dual_lora", "fedavg", seeds=(0, 1)))
    assert done == ["dual_lora-seed0", "fedavg-seed0", "dual_lora-seed1", "fedavg-seed1"]
    (tmp_path / "runs" / "fedavg-seed0.json").unlink()
    run_missing(make_task(tmp_path, "dual_lora", "fedavg", seeds=(0, 1)))
    assert done[4:] == ["fedavg-seed0"]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "centralised"])
def test_a_run_whose_process_was_killed_goes_on_to_the_same_bits(
    make_task: MakeTask, tmp_path: Path, method: str
) -> None:
    whole, cut = (make_task(tmp_path / name, method, rounds=2) for name in ("whole", "cut"))
    (run,) = whole.comparison.runs()
    steps: list[float] = []
    assert run_missing(whole, on_progress=lambda _, share: steps.append(share)) == []
    told: list[float] = []

    def killed(_: Run, share: float) -> None:
        told.append(share)
        if len(told) == len(steps) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_missing(cut, on_progress=killed)
    assert (cut.unfinished(run).stat().st_mode & 0o077) == 0
    other = make_task(tmp_path / "cut", method, rounds=2, seeds=(0,), methods={method: {"batch_size": 1}})
    with pytest.raises(ConfigError, match=r"unfinished.*batch_size: 2, now 1"):
        run_missing(other)
    again: list[float] = []
    assert run_missing(cut, on_progress=lambda _, share: again.append(share)) == []
    assert len(again) < len(steps)
    results = [read_json(task.path(run)) for task in (whole, cut)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["scores"] == results[1]["scores"]
    assert whole.scores_path(run).read_bytes() == cut.scores_path(run).read_bytes()
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"runs", "scores"}


def test_the_number_of_threads_is_the_environments_and_belongs_to_the_results(
    make_task: MakeTask, tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(tmp_path, "fedit")
    run_missing(task)
    monkeypatch.setenv("MONAI_FEDLORA_THREADS", "2")
    with pytest.raises(ConfigError, match="threads: 1, now 2"):
        run_missing(task)
    monkeypatch.setenv("MONAI_FEDLORA_THREADS", "none")
    with pytest.raises(ConfigError, match="MONAI_FEDLORA_THREADS=none"):
        run_missing(task)


@pytest.mark.parametrize("what", ["version", "torch", "code"])
def test_results_of_another_version_are_refused_and_stay(
    make_task: MakeTask, tmp_path: Path, done: list[str], what: str
) -> None:
    task = make_task(tmp_path, "fedit")
    run_missing(task)
    path = tmp_path / "runs" / "fedit-seed0.json"
    stored = read_json(path)
    write_json(path, {**stored, "common": {**stored["common"], what: "earlier"}})
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"fedit-seed0.json was made with other .*{what}: earlier, now .*--output"):
        run_missing(make_task(tmp_path, "fedit", "local"))
    assert path.read_bytes() == before
    assert done == ["fedit-seed0"]


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
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "scores", "failed"}
    assert [path.name for path in (tmp_path / "failed").iterdir()] == ["fedit-seed1.txt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("shapes\n  do not fit"), "RuntimeError: shapes do not fit"),
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (AssertionError(), "AssertionError"),
        (ImportError("no transformers"), "ImportError: no transformers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_a_run_fails_with_the_others_go_on_and_it_is_tried_again(
    make_task: MakeTask,
    tmp_path: Path,
    done: list[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "RAISED", iter([error]))
    task = make_task(tmp_path, "fedprox", "dual_lora")
    (failure,) = run_missing(task)
    assert (failure.run.method, failure.reason) == ("fedprox", reason)
    assert list(stored_results(task)) == [Run(method="dual_lora", seed=0)]
    written = task.error_path(failure.run).read_text(encoding="utf-8")
    assert written.startswith(f"{reason}\n")
    assert "Traceback" in written
    monkeypatch.setattr(module, "execute", lambda comparison, run, **_: (
        {"identity": comparison.identity(run), "common": comparison.common(), "metrics": []}, []
    ))  # fmt: skip
    assert run_missing(task) == []
    assert len(stored_results(task)) == 2
    assert list((tmp_path / "failed").iterdir()) == []


def test_who_stops_it_stops_all(
    make_task: MakeTask, tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "RAISED", iter([KeyboardInterrupt()]))
    with pytest.raises(KeyboardInterrupt):
        run_missing(make_task(tmp_path, "fedprox", "dual_lora"))
    assert done == ["fedprox-seed0"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["identity.json"]


@pytest.mark.slow
@given(data=st.data())
def test_runs_whose_process_died_are_tried_alone_and_no_other_is_lost(
    make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Processes that end for some runs, always or beside others only, or before any run begins."""
    task = make_task(tmp_path_factory.mktemp("out"), "dual_lora", "fedit", seeds=(0, 1, 2))
    runs = task.comparison.runs()
    kinds = st.sampled_from(["sound", "sound", "fails", "dies", "dies beside others"])
    kind = {run: data.draw(kinds, label=run.name) for run in runs}
    broken_start = data.draw(st.booleans(), label="no process can begin the first time")
    pools: list[list[Run]] = []

    def pool(
        task: Task, batch: list[Run], workers: int, on_progress: Any, reasons: dict[Run, str]
    ) -> tuple[list[Run], set[Run]]:
        pools.append(list(batch))
        if broken_start and len(pools) == 1:
            return list(batch), set()
        left, begun = list(batch), set()
        for run in batch:
            begun |= {run, *left[:workers]}
            if kind[run] == "dies" or (kind[run] == "dies beside others" and len(batch) > 1):
                return left, begun
            if kind[run] == "fails":
                reasons[run] = "failed"
            left.remove(run)
        return left, begun

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_pool", pool)
        failures = run_missing(task, workers=2)
    found = {failure.run: failure.reason for failure in failures}
    assert found.keys() == {run for run in runs if kind[run] in ("dies", "fails")}
    assert all("memory" in reason for run, reason in found.items() if kind[run] == "dies")
    assert {run for batch in pools for run in batch} == set(runs)
    assert [failure.run for failure in failures] == [run for run in runs if run in found]


class Deadly(Comparison):
    """A comparison whose runs of fedit are killed in any process but the one that began it."""

    def plan(self, run: Run) -> Any:
        if run.method == "fedit" and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().plan(run)


@pytest.mark.slow
def test_a_process_that_is_killed_takes_no_other_run_with_it(make_task: MakeTask, tmp_path: Path) -> None:
    from monai_fedlora.files import sha256
    from monai_fedlora.networks.catalogue import demo_weights

    backbone = demo_weights("small")
    task = make_task(tmp_path, "dual_lora", "fedit", size="small", backbone_sha256=sha256(backbone))
    deadly = Deadly(**{f.name: getattr(task.comparison, f.name) for f in dataclasses.fields(task.comparison)})
    (failure,) = run_missing(dataclasses.replace(task, comparison=deadly, backbone=str(backbone)), workers=2)
    assert failure.run.method == "fedit"
    assert "memory" in failure.reason
    assert [run.method for run in stored_results(task)] == ["dual_lora"]


def test_progress_is_told_run_by_run(make_task: MakeTask, tmp_path: Path, done: list[str]) -> None:
    told: list[tuple[str, float]] = []
    task = make_task(tmp_path, "dual_lora", "fedavg")
    run_missing(task, on_progress=lambda run, share: told.append((run.method, share)))
    assert told == [("dual_lora", 0.5), ("dual_lora", 1.0), ("fedavg", 0.5), ("fedavg", 1.0)]


@pytest.mark.slow
def test_several_processes_give_the_same_results(make_task: MakeTask, tmp_path: Path) -> None:
    """The processes know nothing of a size that is added here, so that the packaged one is used."""
    from monai_fedlora.files import sha256
    from monai_fedlora.networks.catalogue import demo_weights

    backbone = demo_weights("small")
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
