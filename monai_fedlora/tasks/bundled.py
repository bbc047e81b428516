"""Functions that bundle configs call by ``_target_`` for what differs between tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from monai_fedlora.engines.dataset import PrepareCases
from monai_fedlora.engines.epoch_metrics import EpochMetrics
from monai_fedlora.engines.handlers import Nothing
from monai_fedlora.tasks.known import TASKS, task_of
from monai_fedlora.tasks.task import Task

__all__ = [
    "along",
    "gives_masks",
    "loss",
    "metrics",
    "on_files",
    "outputs",
    "postprocessing",
    "predictions",
    "prepare",
    "task_of",
]


def outputs(*, task: Task | str, names: Sequence[str]) -> int:
    """Number of the head's outputs; ``task`` may be the task's name."""
    return _task(task).outputs(len(names))


def gives_masks(*, task: Task | str) -> bool:
    """Whether the network needs its decoder, whose logits are of every voxel; ``task`` may be the task's name."""
    return _task(task).gives_masks


def _task(task: Task | str) -> Task:
    return TASKS[task] if isinstance(task, str) else task


def prepare(*, task: Task | str) -> PrepareCases:
    """What takes images and targets from a batch; ``task`` may be the task's name."""
    return _task(task).prepare


def along(*, task: Task) -> tuple[str, ...]:
    """Keys of an item that augmentation changes with the image."""
    return task.along


def loss(
    *,
    task: Task,
    names: Sequence[str],
    cases: Sequence[Mapping[str, Any]] = (),
    class_weights: Any = None,
    label_smoothing: float = 0.0,
    device: Any = "cpu",
) -> nn.Module:
    """The training loss, see :class:`monai_fedlora.tasks.task.MakeLoss`."""
    return task.loss(
        names=len(names), cases=cases, class_weights=class_weights, label_smoothing=label_smoothing, device=device
    )


def metrics(*, task: Task, names: Sequence[str], key: str) -> EpochMetrics:
    """The metrics of an evaluation; ``key`` decides which epoch is best."""
    return task.metrics(key, names)


def postprocessing(*, task: Task | str) -> Any:
    """What an evaluation does with a case's output before it is measured; None for nothing.

    ``task`` may be the task's name.
    """
    return _task(task).postprocessing()


def on_files(*, task: Task, dataset: Any, names: Sequence[str], size: str, output_dir: str | None = None) -> Any:
    """A handler for what an evaluation measures on the cases' own files; one that does nothing if that is nothing."""
    if task.on_files is None:
        return Nothing()
    return task.on_files(dataset=dataset, names=names, size=size, output_dir=output_dir)


def predictions(*, task: Task, output_dir: str, names: Sequence[str], filename: str, labels: bool = True) -> Any:
    """A handler that writes what an evaluation found of every case."""
    return task.predictions(output_dir=output_dir, names=names, filename=filename, labels=labels)
