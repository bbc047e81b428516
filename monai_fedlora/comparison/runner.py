"""Do the missing runs of a comparison, in one or several processes, and store each result when it is there."""

from __future__ import annotations

import multiprocessing
import shutil
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.comparison.case_scores import CaseScore, read_scores, write_scores
from monai_fedlora.comparison.comparison_settings import Comparison, Run, differences
from monai_fedlora.data.cases import Datalist
from monai_fedlora.environment import training_threads
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.files import make_folder, read_json, write_json, write_text

RUNS, SCORES, FAILED, UNFINISHED = "runs", "scores", "failed", "unfinished"
_IDENTITY = "identity.json"
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """What a process needs to do runs."""

    comparison: Comparison
    datalists: Mapping[str, Datalist]
    backbone: str
    folder: Path

    def path(self, run: Run) -> Path:
        """Path of a run's result."""
        return self.folder / RUNS / f"{run.name}.json"

    def scores_path(self, run: Run) -> Path:
        """Path of the csv with what a run's models say of every test case."""
        return self.folder / SCORES / f"{run.name}.csv"

    def unfinished(self, run: Run) -> Path:
        """Folder of a run while it goes on, with its private state; what is left there is gone on with."""
        return self.folder / UNFINISHED / run.name

    def error_path(self, run: Run) -> Path:
        """Path of a file with the run's last error; it is deleted when the run has a result."""
        return self.folder / FAILED / f"{run.name}.txt"


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error.

    Attributes:
        run: the run.
        reason: the error, in one line.
    """

    run: Run
    reason: str


Progress = Callable[[Run, float], None]
"""Called with a run and the share of it that is done; 1 when its result is stored or it has failed."""


def stored_results(task: Task) -> dict[Run, Any]:
    """Read the results that earlier calls have stored.

    Raises:
        ConfigError: a result, or what an interrupted run has left, was computed with other settings.
        FedLoraError: a result cannot be read.
    """
    common = task.comparison.common()
    for path in sorted((task.folder / RUNS).glob("*.json")):
        _check_same(path, read_json(path).get("common"), common)
    found = {run: read_json(task.path(run)) for run in task.comparison.runs() if task.path(run).is_file()}
    for run in task.comparison.runs():
        if run not in found and (path := task.unfinished(run) / _IDENTITY).is_file():
            _check_same(path, read_json(path), task.comparison.identity(run))
    for run, result in found.items():
        _check_same(task.path(run), result.get("identity"), task.comparison.identity(run))
    return found


def stored_scores(task: Task, runs: Iterable[Run]) -> list[CaseScore]:
    """What the models of some runs say of every test case.

    Raises:
        FedLoraError: a file is missing or damaged.
    """
    return [score for run in runs for score in read_scores(task.scores_path(run))]


def _check_same(path: Path, stored: Any, now: Mapping[str, Any]) -> None:
    if changed := differences(stored or {}, now):
        more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(
            f"{path} was made with other settings ({'; '.join(changed[:3])}{more}); give the same ones to go on, or "
            "another --output"
        )


def run_missing(task: Task, *, workers: int = 1, on_progress: Progress = lambda run, share: None) -> list[Failure]:
    """Do the runs that have no result yet and store each result in a file of its own.

    A run that was interrupted, because its process was killed, goes on after its last round, to the same bits. A run
    that fails does not stop the others; its error is written into the folder :data:`FAILED`, and the next call tries it
    again. If a process is killed, as the system does when memory is short, each run that was in progress is tried once
    more in a process of its own.

    Every process computes with one thread, or as many as ``MONAI_FEDLORA_THREADS`` says, so that results do not depend
    on the number of processes and cores. Each keeps preprocessed images and the features of the frozen blocks in
    memory.

    Args:
        task: the comparison.
        workers: number of processes; with one, the runs are done in this process.
        on_progress: see :data:`Progress`.

    Returns:
        The runs that failed, in the order of the comparison.

    Raises:
        ConfigError: see :func:`stored_results`.
    """
    stored = stored_results(task)
    missing = [run for run in task.comparison.runs() if run not in stored]
    if workers > 1 and len(missing) > 1:
        reasons = _in_processes(task, missing, workers, on_progress)
    else:
        reasons = _here(task, missing, on_progress)
    with suppress(OSError):  # something is left there
        (task.folder / UNFINISHED).rmdir()
    return [Failure(run, reasons[run]) for run in missing if run in reasons]


def _here(task: Task, runs: Sequence[Run], on_progress: Progress) -> dict[Run, str]:
    import torch

    from monai_fedlora.engines.memory import Memory

    threads, memory, reasons = torch.get_num_threads(), Memory(), {}
    torch.set_num_threads(training_threads())
    try:
        for run in runs:
            if reason := _reason(task, run, memory, on_progress):
                reasons[run], memory = reason, Memory()  # free memory, of which there may have been too little
            on_progress(run, 1.0)
    finally:
        torch.set_num_threads(threads)
    return reasons


def _reason(task: Task, run: Run, memory: Any, on_progress: Progress) -> str | None:
    """Do a run and store its result or its error; returns the error in one line."""
    try:
        _do(task, run, memory, on_progress)
    except Exception as error:  # any error: the other runs, which may take hours, go on
        reason = _in_a_line(error)
        write_text(task.error_path(run), f"{reason}\n\n{''.join(traceback.format_exception(error))}")
        return reason
    task.error_path(run).unlink(missing_ok=True)
    return None


def _in_a_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, FedLoraError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _do(task: Task, run: Run, memory: Any, on_progress: Progress) -> None:
    from monai_fedlora.comparison.execute import execute

    folder = task.unfinished(run)
    make_folder(folder)
    write_json(folder / _IDENTITY, task.comparison.identity(run))
    try:
        result, scores = execute(
            task.comparison,
            run,
            datalists=task.datalists,
            backbone=task.backbone,
            folder=folder,
            memory=memory,
            on_progress=lambda share: on_progress(run, min(share, 0.99)),
        )
    except Exception:
        shutil.rmtree(folder)  # the next call begins anew; what a killed process leaves is gone on with
        raise
    write_scores(task.scores_path(run), scores)
    write_json(task.path(run), result)  # last, because a run with a result is done
    shutil.rmtree(folder)


_worker: dict[str, Any] = {}
"""What a worker process keeps between two runs."""


def _start_worker(task: Task, progress: Any) -> None:
    import torch

    from monai_fedlora.engines.memory import Memory

    torch.set_num_threads(training_threads())
    _worker.update(task=task, progress=progress, memory=Memory())


def _work(run: Run) -> str | None:
    _worker["progress"].put((run, 0.0))
    return _reason(_worker["task"], run, _worker["memory"], lambda run, share: _worker["progress"].put((run, share)))


def _in_processes(task: Task, runs: Sequence[Run], workers: int, on_progress: Progress) -> dict[Run, str]:
    reasons: dict[Run, str] = {}
    waiting, lost = list(runs), list[Run]()
    while waiting:
        left, begun = _pool(task, waiting, min(workers, len(waiting)), on_progress, reasons)
        ended = [run for run in left if run in begun] or left  # if none had begun, no process could start
        waiting = [run for run in left if run not in ended]
        lost += ended
    for run in lost:
        if _pool(task, [run], 1, on_progress, reasons)[0]:
            reasons[run] = _LOST
            write_text(task.error_path(run), f"{_LOST}\n")
            on_progress(run, 1.0)
    return reasons


_LOST = (
    "its process ended without a word, the second time with no other beside it; that is what the system does to a "
    "process for want of memory"
)


def _pool(
    task: Task, runs: Sequence[Run], workers: int, on_progress: Progress, reasons: dict[Run, str]
) -> tuple[list[Run], set[Run]]:
    """Do runs in processes until all are done or one process ends unexpectedly.

    Returns:
        The unfinished runs, and the runs that had begun.
    """
    context = multiprocessing.get_context("spawn")
    progress: Any = context.SimpleQueue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(task, progress))
    left, begun, futures = list(runs), set[Run](), {}

    def hear() -> None:
        while not progress.empty():
            run, share = progress.get()
            begun.add(run)
            if share:
                on_progress(run, share)

    try:
        try:
            futures = {pool.submit(_work, run): run for run in runs}
        except BrokenProcessPool:
            return left, begun
        pending: set[Future[str | None]] = set(futures)
        while pending:
            done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            hear()
            for future in done:
                run = futures[future]
                try:
                    reason = future.result()
                except BrokenProcessPool:
                    continue
                left.remove(run)
                if reason:
                    reasons[run] = reason
                on_progress(run, 1.0)
        hear()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [run for run in left if not task.path(run).is_file()], begun
