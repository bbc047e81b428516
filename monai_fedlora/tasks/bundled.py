"""Functions that bundle configs call by ``_target_`` for what differs between tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from monai_fedlora.engines.dataset import PrepareCases
from monai_fedlora.engines.epoch_metrics import EpochMetrics
from monai_fedlora.tasks.known import task_of
from monai_fedlora.tasks.task import Task

__all__ = [
    "along",
    "gives_masks",
    "loss",
    "metrics",
    "outputs",
    "postprocessing",
    "predictions",
    "prepare",
    "task_of",
]


def outputs(*, task: Task, names: Sequence[str]) -> int:
    """Number of the head's outputs."""
    return task.outputs(len(names))


def gives_masks(*, task: Task) -> bool:
    """Whether the network needs its decoder, whose logits are of every voxel."""
    return task.gives_masks


def prepare(*, task: Task) -> PrepareCases:
    """What takes images and targets from a batch."""
    return task.prepare


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


def postprocessing(*, task: Task) -> Any:
    """What an evaluation does with a case's output before it is measured; None for nothing."""
    return task.postprocessing()


def predictions(*, task: Task, output_dir: str, names: Sequence[str], filename: str, labels: bool = True) -> Any:
    """A handler that writes what an evaluation found of every case."""
    return task.predictions(output_dir=output_dir, names=names, filename=filename, labels=labels)
