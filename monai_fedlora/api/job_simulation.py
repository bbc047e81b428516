"""A job folder, run on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from monai_fedlora.environment import training_threads
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated import rounds, simulator
from monai_fedlora.federated.limits import limits_said
from monai_fedlora.federated.plan import CLASSIFICATION
from monai_fedlora.federated.reasons import said_of
from monai_fedlora.federated.run_record import RESULTS_NAME, differences_said, restarts_said, withheld_said
from monai_fedlora.federated.shortfalls import absences_said
from monai_fedlora.rendering.tables import Table
from monai_fedlora.resources import job_template_path
from monai_fedlora.site_report import PERSONAL, SHARED
from monai_fedlora.tasks.known import TASKS

__all__ = ["Simulated", "simulate"]

_CLASSES = (
    ("personal\nbal. acc.", PERSONAL, "balanced_accuracy"),
    ("shared\nbal. acc.", SHARED, "balanced_accuracy"),
    ("AUROC", PERSONAL, "auroc"),
    ("sens.", PERSONAL, "sensitivity"),
    ("spec.", PERSONAL, "specificity"),
)
"""Columns of classification: their head, whose model's, and the metric."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A run of a job folder that has come to its end.

    Attributes:
        results: its record, as ``results.json`` in the workspace has it.
        workspace: the folder of everything that it wrote; the run of `monai_fedlora.report` and `monai_fedlora.export`.
    """

    results: Mapping[str, Any]
    workspace: Path

    @property
    def path(self) -> Path:
        """The file of the record."""
        return self.workspace / RESULTS_NAME

    @property
    def lacks(self) -> list[str]:
        """What the run has not done of what its plan asks for, in words; empty if it did all that it should."""
        return list(self.results["lacks"])

    @property
    def error(self) -> str:
        """The last error that a site has noted, and where all are; empty where there is none."""
        return simulator.last_error(self.workspace)

    @property
    def refused(self) -> list[str]:
        """Updates that were left out of their round, and why, a line each."""
        return [
            f"refused in round {entry['round']}: {entry['site']}: {said_of(entry)}" for entry in self.results["refused"]
        ]

    @property
    def notes(self) -> list[str]:
        """Sites that the plan let be missing, what the record leaves out, and sites that differ or count less.

        Sites differ where they have other packages or began without their state.
        """
        said = (absences_said, withheld_said, differences_said, restarts_said, limits_said)
        return [line for each in said for line in each(self.results)]

    @property
    def images(self) -> str | None:
        """Whether the sites say that their training images are "synthetic", "real" or "mixed"; None for old runs."""
        kind: str | None = self.results.get("training_data", {}).get("kind")
        return kind

    @property
    def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes of all messages that each site sent and received; empty where there were no messages."""
        answers = [entry["sites"] for entry in self.results["rounds"]]
        if not any("bytes_sent" in said for entry in answers for said in entry.values()):
            return {}
        return {
            site: (_sum(answers, site, "bytes_sent"), _sum(answers, site, "bytes_received"))
            for site in self.results["plan"]["sites"]
        }

    def table(self) -> Table:
        """Each site's test metrics of both models, and what the site sent and received.

        In the means every site has the same weight; a last row says of how many sites they are, where that is not all.
        """
        plan, traffic = self.results["plan"], self.traffic
        tests = {site: self.results["final"].get(site, {}).get("test", {}) for site in plan["sites"]}
        tabled = _tabled(plan, list(tests.values()))
        numbers = [[_of(test, column) for column in tabled] for test in tests.values()]
        rows = [
            [site, test.get(PERSONAL, {}).get("n", ""), *map(_number, found), *_kilobytes(*traffic.get(site, ()))]
            for (site, test), found in zip(tests.items(), numbers, strict=True)
        ]
        known = [[value for value in column if value is not None] for column in zip(*numbers, strict=True)]
        rows.append(["mean", "", *(_number(fmean(values) if values else None) for values in known), "", ""])
        if any(0 < len(values) < len(tests) for values in known):
            rows.append(["of sites", "", *map(len, known), "", ""])
        how_long = "1 round" if plan["rounds"] == 1 else f"{plan['rounds']} rounds"
        return Table(
            caption=f"{plan['experiment']}: test split after {how_long} ({self.results['seconds']:.0f} s)",
            head=["site", "cases", *(head for head, _, _ in tabled), "sent", "received"],
            rows=rows,
        )


def _tabled(plan: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, str, str]]:
    """The columns of a plan's task; of other tasks than classification those alone of which a site has a number."""
    task = TASKS[plan.get("task", CLASSIFICATION)]
    if task.name == CLASSIFICATION:
        return _CLASSES
    keys = [(f"{model}\n{task.word}", model, task.key) for model in (PERSONAL, SHARED)]
    finer = task.file_measures or task.more(plan["classes"])
    columns = [*keys, *((words, PERSONAL, name) for name, words in finer.items())]
    return [column for column in columns if any(_of(test, column) is not None for test in tests)]


def _of(test: Mapping[str, Any], column: tuple[str, str, str]) -> float | None:
    """A site's number of a column."""
    _, view, name = column
    value: float | None = test.get(view, {}).get(name)
    return value


def score_word(results: Mapping[str, Any]) -> str:
    """What the validation scores in a run's results are."""
    return TASKS[results["plan"].get("task", CLASSIFICATION)].word


def _sum(answers: list[Mapping[str, Any]], site: str, key: str) -> int:
    return sum(entry.get(site, {}).get(key, 0) for entry in answers)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _kilobytes(*counts: int) -> list[str]:
    return [f"{count / 1000:,.0f} kB" for count in counts] or ["", ""]


def simulate(
    job: str | os.PathLike[str],
    *,
    workspace: str | os.PathLike[str],
    data: str | None = None,
    backbone: str | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    in_process: bool = False,
    keep_answers: bool = False,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> Simulated:
    """Run a job folder in NVFlare's simulator, or without NVFlare in this process.

    Args:
        job: its folder, or the name of a shipped one.
        workspace: folder for everything the run writes; it holds private state.
        data: folder of prepared sites (default: ``MONAI_FEDLORA_DATA``, then generated phantoms).
        backbone: backbone file (default: ``MONAI_FEDLORA_BACKBONE``, then the demo weights).
        overwrite: remove what another run has left in the workspace, and nothing else.
        threads: sites that run at once in the simulator; None for all, within reason.
        in_process: one site after the other in this process, with one frozen backbone for all.
        keep_answers: with ``in_process``: keep what the server sees in every round in the workspace's private folder,
            for `monai_fedlora.audit`.
        on_progress: called with the results so far whenever they change.

    Returns:
        The run; its ``lacks`` are empty if it did all that it should, and ``print(run.table())`` shows what came out.

    Raises:
        ConfigError: there is no such job, the workspace holds another run, ``threads`` stands beside ``in_process``, or
            ``keep_answers`` without it.
        FedLoraError: the run failed; the message names the log to read.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.simulate("no_such_job", workspace="runs/trial")
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.ConfigError: ...no_such_job...
    """
    if in_process and threads is not None:
        raise ConfigError("threads are of NVFlare's simulator; leave them out with in_process")
    if keep_answers and not in_process:
        raise ConfigError("answers are kept by runs in this process alone; give --in-process (in_process=True) too")
    folder = Path(job)
    folder = folder if folder.is_dir() else job_template_path(folder.name)
    place = Path(workspace)
    common: dict[str, Any] = {"backbone": backbone, "overwrite": overwrite, "on_progress": on_progress}
    if in_process:
        common |= {"threads": training_threads(), "record_failures": True, "keep_answers": keep_answers}
        results: Mapping[str, Any] = rounds.run_in_process(folder, folder=place, data_root=data, **common)
    else:
        results = simulator.simulate(folder, workspace=place, data=data, threads=threads, **common)
    return Simulated(results=results, workspace=place)
