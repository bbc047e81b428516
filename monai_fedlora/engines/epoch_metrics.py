"""Ignite metrics that are computed once per epoch, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from ignite.metrics import Metric
from monai.utils import evenly_divisible_all_gather

from monai_fedlora.engines.metrics import LOWER_IS_BETTER, METRICS, classification_metrics
from monai_fedlora.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ignite.engine import Engine


def predictions_and_labels(output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack ``pred`` (C,) and ``label`` of a decollated engine output into (B, C) and (B,)."""
    probabilities = torch.stack([torch.as_tensor(item["pred"]).detach().float().cpu() for item in output])
    labels = torch.as_tensor([int(item["label"]) for item in output])
    return probabilities, labels


class EpochMetrics(Metric):
    """Metrics of a task, computed once per epoch of all cases.

    Numbers go to ``engine.state.metrics`` under their own names (None where undefined), all that :meth:`compute` has
    found to ``engine.state.metric_details``.

    Args:
        key: the metric that decides which epoch is best.
        names: the metrics that are numbers.
        lower_is_better: those of them of which a smaller value is the better one.
        output_transform: turns ``engine.state.output`` into what :meth:`update` takes.

    Raises:
        ConfigError: ``key`` is not a metric.
    """

    def __init__(
        self,
        *,
        key: str,
        names: Collection[str],
        lower_is_better: Collection[str] = (),
        output_transform: Callable[[Any], Any],
    ) -> None:
        if key not in names:
            raise ConfigError(f"{key!r} is not a metric; choose from {', '.join(names)}")
        self.key = key
        self.names = tuple(names)
        self._lower_is_better = frozenset(lower_is_better)
        super().__init__(output_transform=output_transform)

    def better(self, current: float, best: float) -> bool:
        """Whether ``current`` is an improvement on ``best``."""
        return current < best if self.key in self._lower_is_better else current > best

    def completed(self, engine: Engine, name: str) -> None:
        """Write the result of an epoch into ``engine.state``; ``name`` holds the key metric."""
        values: dict[str, Any] = self.compute()
        for metric in self.names:
            engine.state.metrics[metric] = values[metric]
        engine.state.metrics[name] = values[self.key]
        state: Any = engine.state
        state.metric_details = values


class ClassificationMetrics(EpochMetrics):
    """Compute :func:`classification_metrics` once per epoch, over all processes.

    Args:
        key: the metric that decides which epoch is best.
        n_bins: see :func:`classification_metrics`.
        output_transform: turns ``engine.state.output`` into probabilities (B, C) and labels (B,); the default
            takes MONAI's decollated list with ``pred`` and ``label``.

    Raises:
        ConfigError: ``key`` is not a metric.
    """

    def __init__(
        self,
        *,
        key: str = "balanced_accuracy",
        n_bins: int = 15,
        output_transform: Callable[[Any], tuple[torch.Tensor, torch.Tensor]] = predictions_and_labels,
    ) -> None:
        self.n_bins = n_bins
        super().__init__(key=key, names=METRICS, lower_is_better=LOWER_IS_BETTER, output_transform=output_transform)

    def reset(self) -> None:
        """Forget the cases seen so far."""
        self._probabilities: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add a batch of probabilities (B, C) and labels (B,)."""
        probabilities, labels = output
        self._probabilities.append(probabilities.detach().float().cpu())
        self._labels.append(labels.detach().long().cpu())

    def compute(self) -> dict[str, Any]:
        """Return :func:`classification_metrics` of every process's cases.

        Raises:
            DataError: no case was seen.
        """
        if not self._labels:
            raise DataError("there is no case to evaluate; the data list's split is empty")
        probabilities = evenly_divisible_all_gather(torch.cat(self._probabilities), concat=True)
        labels = evenly_divisible_all_gather(torch.cat(self._labels), concat=True)
        return classification_metrics(probabilities, labels, n_bins=self.n_bins)
