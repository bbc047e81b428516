"""Write what the evaluator found: predictions per study, and metrics."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_fedlora.engines.distributed import is_main, world_size
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.files import write_json, write_text

_log = logging.getLogger(__name__)


class PredictionWriter:
    """Write ``study, <probability of each class>, prediction`` for every study, in the order of evaluation.

    The file appears when all studies are done, or not at all, and is readable by its owner only.

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
        if world_size() > 1:
            raise ConfigError("predictions are written by one process; start the command without torchrun")
        self.path = Path(output_dir) / filename
        self.classes = list(classes)
        self.labels = labels

    def attach(self, engine: Engine) -> None:
        """Collect ``engine``'s decollated outputs."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _reset(self, engine: Engine) -> None:
        self._rows: list[list[str]] = []

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output, strict=True):
            probabilities = torch.as_tensor(output["pred"]).flatten().tolist()
            study = str(item["subject"])
            if len(probabilities) != len(self.classes):
                raise ConfigError(f"the network gives {len(probabilities)} classes, and {self.classes} are named")
            if not torch.isfinite(torch.tensor(probabilities)).all():
                raise DataError(f"study {study}: the prediction is not finite; its image or the checkpoint is damaged")
            best = max(range(len(probabilities)), key=probabilities.__getitem__)
            row = [study, *(f"{p:.6f}" for p in probabilities), self.classes[best]]
            self._rows.append([*row, self.classes[int(item["label"])]] if self.labels else row)

    def _write(self, engine: Engine) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["study", *self.classes, "prediction", *(["label"] if self.labels else [])])
        writer.writerows(self._rows)
        write_text(self.path, text.getvalue())
        _log.info("%d predictions: %s", len(self._rows), self.path)


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
