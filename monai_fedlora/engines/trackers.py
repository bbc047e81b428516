"""Experiment trackers by name: TensorBoard and MLflow."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ignite.engine import Engine
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler, from_engine
from monai.utils import path_to_sqlite_uri

from monai_fedlora.engines.distributed import is_main
from monai_fedlora.errors import ConfigError

_MODULES = {"tensorboard": "tensorboard", "mlflow": "mlflow"}


class Trackers:
    """Record metrics per epoch, and for the trainer loss and learning rate, with MONAI's handlers.

    TensorBoard files go to ``<output_dir>/tensorboard/<phase>``, MLflow's database and artefacts to
    ``<output_dir>``, unless ``MLFLOW_TRACKING_URI`` names a server.

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
        for name in names:
            if name not in _MODULES:
                raise ConfigError(f"there is no tracker {name!r}; choose from {', '.join(_MODULES)}")
            if importlib.util.find_spec(_MODULES[name]) is None:
                raise ConfigError(
                    f"the tracker {name!r} needs a package that is not installed; "
                    "install it with: pip install 'monai-fedlora[tracking]'"
                )
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
            if name == "tensorboard":
                TensorBoardStatsHandler(
                    log_dir=str(self.output_dir / "tensorboard" / self.phase),
                    state_attributes=["learning_rate"] if training else None,
                    **common,
                ).attach(engine)
            else:
                self.output_dir.mkdir(parents=True, exist_ok=True)
                MLFlowHandler(
                    tracking_uri=path_to_sqlite_uri(str(self.output_dir / "mlruns.db")),
                    experiment_name=self.experiment,
                    run_name=self.output_dir.name,
                    state_attributes=["learning_rate"] if training else None,
                    **common,
                ).attach(engine)
