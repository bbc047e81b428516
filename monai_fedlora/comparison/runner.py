"""Run what is missing of a comparison, in this process or in several, and keep each result as it comes."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.comparison.settings import Comparison, Run, differences
from monai_fedlora.data.cases import Datalist
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.files import read_json, write_json

RUNS = "runs"
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """What a process needs to know to do runs."""

    comparison: Comparison
    datalists: Mapping[str, Datalist]
    backbone: str
    folder: Path

    def path(self, run: Run) -> Path:
        """Where a run's result is kept."""
        return self.folder / RUNS / f"{run.name}.json"


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error."""

    run: Run
    reason: str


Progress = Callable[[Run, float], None]
"""Told the share of a run that is done; 1 when its result is kept or it has failed."""


def stored_results(task: Task) -> dict[Run, Any]:
    """Read the results that earlier calls kept.

    Raises:
        ConfigError: one of them was made with other settings.
        FedLoraError: one cannot be read.
    """
    common = task.comparison.common()
    for path in sorted((task.folder / RUNS).glob("*.json")):
        _check_same(path, read_json(path).get("common"), common)
    found = {run: read_json(task.path(run)) for run in task.comparison.runs() if task.path(run).is_file()}
    for run, result in found.items():
        _check_same(task.path(run), result.get("identity"), task.comparison.identity(run))
    return found


def _check_same(path: Path, stored: Any, now: Mapping[str, Any]) -> None:
    if changed := differences(stored or {}, now):
        more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(
            f"{path} was made with other settings ({'; '.join(changed[:3])}{more}); give the same ones to go on, or "
            "another --output"
        )


def run_missing(task: Task, *, workers: int = 1, on_progress: Progress = lambda run, share: None) -> list[Failure]:
    """Do the runs that have no result yet and keep each result in a file of its own.

    A run that fails does not stop the others. Every process computes with one thread, so that a result does not depend
    on how many there are. Each keeps the images as preprocessed, and the features of the frozen blocks, in memory.

    Args:
        task: the comparison.
        workers: processes; with one, this process does the runs.
        on_progress: told how far the runs are.

    Returns:
        The runs that failed.

    Raises:
        ConfigError: see :func:`stored_results`.
        FedLoraError: a process ended unexpectedly.
    """
    stored = stored_results(task)
    missing = [run for run in task.comparison.runs() if run not in stored]
    if workers > 1 and len(missing) > 1:
        return _in_processes(task, missing, min(workers, len(missing)), on_progress)
    return _here(task, missing, on_progress)


def _here(task: Task, runs: list[Run], on_progress: Progress) -> list[Failure]:
    import torch

    from monai_fedlora.engines.memory import Memory

    threads, memory, failures = torch.get_num_threads(), Memory(), []
    torch.set_num_threads(1)
    try:
        for run in runs:
            try:
                _do(task, run, memory, on_progress)
            except FedLoraError as error:
                failures.append(Failure(run, str(error)))
            on_progress(run, 1.0)
    finally:
        torch.set_num_threads(threads)
    return failures


def _do(task: Task, run: Run, memory: Any, on_progress: Progress) -> None:
    from monai_fedlora.comparison.execute import execute

    with tempfile.TemporaryDirectory(prefix="monai-fedlora-") as folder:
        result = execute(
            task.comparison,
            run,
            datalists=task.datalists,
            backbone=task.backbone,
            folder=Path(folder),
            memory=memory,
            on_progress=lambda share: on_progress(run, min(share, 0.99)),
        )
    write_json(task.path(run), result)


_worker: dict[str, Any] = {}
"""What a worker process keeps between two runs."""


def _start_worker(task: Task, progress: Any) -> None:
    import torch

    from monai_fedlora.engines.memory import Memory

    torch.set_num_threads(1)
    _worker.update(task=task, progress=progress, memory=Memory())


def _work(run: Run) -> None:
    _do(_worker["task"], run, _worker["memory"], lambda run, share: _worker["progress"].put((run, share)))


def _in_processes(task: Task, runs: list[Run], workers: int, on_progress: Progress) -> list[Failure]:
    context = multiprocessing.get_context("spawn")
    progress, failures = context.SimpleQueue(), []
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(task, progress))
    try:
        futures: dict[Future[None], Run] = {pool.submit(_work, run): run for run in runs}
        while futures:
            done, _ = wait(futures, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            while not progress.empty():
                on_progress(*progress.get())
            for future in done:
                run = futures.pop(future)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    raise FedLoraError(
                        f"a process ended unexpectedly during {run.name} or another run, probably for want of memory; "
                        "finished runs are kept: start again with fewer --workers"
                    ) from error
                except FedLoraError as error:
                    failures.append(Failure(run, str(error)))
                on_progress(run, 1.0)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failures
