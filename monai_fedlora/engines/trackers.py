"""Experiment trackers by name: TensorBoard and MLflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ignite.engine import Engine
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler, from_engine
from monai.utils import is_scalar, path_to_sqlite_uri

from monai_fedlora.engines.distributed import is_main
from monai_fedlora.files import make_folder
from monai_fedlora.tracker_names import TENSORBOARD, check_trackers


class _DefinedMetrics:
    """A handler that is shown the metrics with a value alone.

    A metric can be undefined, as the AUROC of a split with one class. MLflow refuses a batch with such a metric, which
    would end the training, and shows one that is not a number as 0.
    """

    def epoch_completed(self, engine: Engine) -> None:
        """Record an epoch."""
        metrics = engine.state.metrics
        engine.state.metrics = {name: value for name, value in metrics.items() if _is_defined(value)}
        try:
            super().epoch_completed(engine)  # type: ignore[misc]
        finally:
            engine.state.metrics = metrics


def _is_defined(value: Any) -> bool:
    return is_scalar(value) and math.isfinite(float(value))


class _TensorBoard(_DefinedMetrics, TensorBoardStatsHandler):
    pass


class _MLFlow(_DefinedMetrics, MLFlowHandler):
    pass


class Trackers:
    """Record metrics per epoch, and for the trainer loss and learning rate, with MONAI's handlers.

    Metrics that are undefined in an epoch are left out of it.

    TensorBoard files go to ``<output_dir>/tensorboard/<phase>``, MLflow's database and artefacts to
    ``<output_dir>``, unless ``MLFLOW_TRACKING_URI`` names a server. Both engines write one MLflow run, which ends with
    the training, so that the next training in the folder starts another.

    Args:
        names: any of "tensorboard" and "mlflow"; empty records nothing.
        output_dir: folder of the run.
        phase: which engine this is.
        experiment: name of the MLflow experiment.

    Raises:
        ConfigError: an unknown name, or its package is not installed.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        output_dir: str | Path,
        phase: Literal["train", "validation"],
        experiment: str = "monai_fedlora",
    ) -> None:
        check_trackers(names)
        self.names = tuple(names)
        self.output_dir = Path(output_dir)
        self.phase = phase
        self.experiment = experiment

    def attach(self, engine: Engine) -> None:
        """Record ``engine``, in the first process."""
        if not is_main():
            return
        training = self.phase == "train"
        common: dict[str, Any] = {
            "iteration_log": training,
            "output_transform": from_engine(["loss"], first=True),
            "tag_name": "train_loss_batch",
        }
        for name in self.names:
            if name == TENSORBOARD:
                _TensorBoard(
                    log_dir=str(self.output_dir / "tensorboard" / self.phase),
                    state_attributes=["learning_rate"] if training else None,
                    **common,
                ).attach(engine)
            else:
                make_folder(self.output_dir)
                _MLFlow(
                    tracking_uri=path_to_sqlite_uri(str(self.output_dir / "mlruns.db")),
                    experiment_name=self.experiment,
                    run_name=self.output_dir.name,
                    close_on_complete=training,
                    state_attributes=["learning_rate"] if training else None,
                    **common,
                ).attach(engine)
