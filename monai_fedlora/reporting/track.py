"""Send a run's metrics to TensorBoard or MLflow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from monai_fedlora.reporting.record import Answer, Record
from monai_fedlora.site_report import REPORTED

_AT_ONCE = 1000
"""Largest number of metrics in one request to MLflow."""


class Number(NamedTuple):
    """A value of a curve.

    Attributes:
        name: such as ``site-1/validation/personal/auroc``.
        step: the round, counted from 0; the final evaluation counts as the round after the last.
        value: finite.
    """

    name: str
    step: int
    value: float


def numbers(record: Record) -> Iterator[Number]:
    """All metrics of a record, without undefined or unknown ones."""
    last = 0
    for entry in record.rounds:
        last = max(last, entry.number + 1)
        if entry.score is not None:
            yield Number("score", entry.number, entry.score)
        for site, answer in entry.answers.items():
            yield from _of_answer(site, entry.number, answer)
        if entry.agreement is not None:
            for site, norm in entry.agreement.norms.items():
                yield Number(f"{site}/change_norm", entry.number, norm)
    for site, answer in record.final.items():
        yield from _of_answer(site, last, answer)


def _of_answer(site: str, step: int, answer: Answer) -> Iterator[Number]:
    for name in ("train_loss", "seconds", "sent", "received"):
        value = getattr(answer, name)
        if value is not None:
            yield Number(f"{site}/{name}", step, float(value))
    for split in REPORTED:
        for view, metrics in getattr(answer, split).items():
            for name, value in metrics.values.items():
                yield Number(f"{site}/{split}/{view}/{name}", step, value)


def to_tensorboard(record: Record, folder: Path) -> None:
    """Write an event file into ``folder``, which is created."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(log_dir=str(folder)) as writer:
        for number in numbers(record):
            writer.add_scalar(number.name, number.value, number.step)


def to_mlflow(record: Record, uri: str) -> None:
    """Write a finished MLflow run with the name of the experiment.

    Args:
        record: the run.
        uri: of a server, or of a local store such as ``sqlite:///mlruns.db``.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client: Any = MlflowClient(tracking_uri=uri)
    name = str(record.plan.get("experiment", "monai_fedlora"))
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    run = client.create_run(experiment, run_name=name).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(number.name, number.value, now, number.step) for number in numbers(record)]
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + _AT_ONCE])
    client.set_terminated(run)
