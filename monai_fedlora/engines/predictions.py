"""Write what the evaluator found: predictions per study, and metrics."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_fedlora.engines.distributed import is_main, world_size
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.files import csv_text, write_json, write_text

_log = logging.getLogger(__name__)


class StudyTable(ABC):
    """Write rows of every study, in the order of evaluation.

    The file appears when all studies are done, or not at all, and is readable by its owner only.

    Args:
        output_dir: receives the file.
        filename: name of the CSV file.
        header: names of the columns.

    Raises:
        ConfigError: several processes would each hold a part of the studies.
    """

    def __init__(self, *, output_dir: str | Path, filename: str, header: Sequence[str]) -> None:
        if world_size() > 1:
            raise ConfigError("predictions are written by one process; start the command without torchrun")
        self.path = Path(output_dir) / filename
        self._header = list(header)

    def attach(self, engine: Engine) -> None:
        """Collect ``engine``'s decollated outputs."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    @abstractmethod
    def rows(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterable[Sequence[str]]:
        """What is written of a study: its item in the batch, and its output with ``pred`` and ``label``."""

    def _reset(self, engine: Engine) -> None:
        self._rows: list[Sequence[str]] = []

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output, strict=True):
            self._rows += self.rows(item, output)

    def _write(self, engine: Engine) -> None:
        write_text(self.path, csv_text([self._header, *self._rows]))
        _log.info("%d predictions: %s", len(self._rows), self.path)


class PredictionWriter(StudyTable):
    """Write ``study, <probability of each class>, prediction`` for every study, see :class:`StudyTable`.

    Args:
        output_dir: receives the file.
        classes: class names, in the order of the probabilities.
        filename: name of the CSV file.
        labels: add the true class as a last column.

    Raises:
        ConfigError: several processes would each hold a part of the studies.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        classes: Sequence[str],
        filename: str = "predictions.csv",
        labels: bool = False,
    ) -> None:
        self.classes = list(classes)
        self.labels = labels
        header = ["study", *classes, "prediction", *(["label"] if labels else [])]
        super().__init__(output_dir=output_dir, filename=filename, header=header)

    def rows(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterable[Sequence[str]]:
        """One row.

        Raises:
            ConfigError: there are more or fewer probabilities than classes.
            DataError: a probability is not finite.
        """
        study = str(item["subject"])
        probabilities = torch.as_tensor(output["pred"]).flatten().tolist()
        if len(probabilities) != len(self.classes):
            raise ConfigError(f"the network gives {len(probabilities)} classes, and {self.classes} are named")
        if not torch.isfinite(torch.tensor(probabilities)).all():
            raise DataError(f"study {study}: the prediction is not finite; its image or the checkpoint is damaged")
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        row = [study, *(f"{p:.6f}" for p in probabilities), self.classes[best]]
        return [[*row, self.classes[int(item["label"])]] if self.labels else row]


class MetricsWriter:
    """Write what :class:`~monai_fedlora.engines.epoch_metrics.EpochMetrics` found as JSON, in the first process.

    Args:
        output_dir: receives the file.
        filename: name of the JSON file.
    """

    def __init__(self, *, output_dir: str | Path, filename: str = "metrics.json") -> None:
        self.path = Path(output_dir) / filename

    def attach(self, engine: Engine) -> None:
        """Write ``engine``'s metrics when it is done."""
        if is_main():
            engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        state: Any = engine.state
        write_json(self.path, state.metric_details)
        _log.info("metrics: %s", self.path)
