"""Small handlers of the training engine."""

from __future__ import annotations

import logging
import sys
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from monai_fedlora.engines.distributed import is_main
from monai_fedlora.errors import ConfigError

_log = logging.getLogger(__name__)


class Validation:
    """Run the evaluator after every ``interval``-th epoch; an interval of 0 never runs it.

    Args:
        evaluator: the validation engine; it is told the training epoch.
        interval: epochs between two validations.

    Raises:
        ConfigError: the interval is negative.
    """

    def __init__(self, *, evaluator: Evaluator, interval: int = 1) -> None:
        if interval < 0:
            raise ConfigError(f"val_interval is {interval}; give 1 for every epoch, or 0 for never")
        self.evaluator = evaluator
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Validate ``engine``'s epochs."""
        if self.interval:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self._validate)

    def _validate(self, engine: Engine) -> None:
        self.evaluator.run(global_epoch=engine.state.epoch)


class EarlyStopping:
    """Stop training when the key metric has not improved for ``patience`` epochs.

    Attach it behind the validation. It looks only at the evaluator's best epoch, which is the same in every
    process, so that all of them stop together.

    Args:
        evaluator: the validation engine.
        patience: epochs without improvement; 0 never stops.

    Raises:
        ConfigError: the patience is negative.
    """

    def __init__(self, *, evaluator: Evaluator, patience: int = 0) -> None:
        if patience < 0:
            raise ConfigError(f"early_stopping_patience is {patience}; give a number of epochs, or 0 to turn it off")
        self.evaluator = evaluator
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        """Watch ``engine``'s epochs."""
        if self.patience:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop_if_stuck)

    def _stop_if_stuck(self, engine: Engine) -> None:
        best = self.evaluator.state.best_metric_epoch
        if 0 < best <= engine.state.epoch - self.patience:
            _log.info("no improvement since epoch %d: training stops at epoch %d", best, engine.state.epoch)
            engine.terminate()


class Progress:
    """A progress bar per epoch on a terminal; nothing when the output goes to a file.

    Args:
        enabled: False never shows one.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled

    def attach(self, engine: Engine) -> None:
        """Show ``engine``'s batches."""
        if self.enabled and is_main() and sys.stderr.isatty():
            from ignite.handlers import ProgressBar
            from monai.handlers import from_engine

            loss = from_engine("loss", first=True)
            ProgressBar(desc="epoch").attach(engine, output_transform=lambda output: {"loss": float(loss(output))})


class EpochLog:
    """Log one line per epoch, in the first process: loss and rate of a trainer, metrics of an evaluator.

    Args:
        phase: how the line calls the engine.
    """

    def __init__(self, *, phase: str) -> None:
        self.phase = phase

    def attach(self, engine: Engine) -> None:
        """Log ``engine``'s epochs."""
        if is_main():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._log)

    def _log(self, engine: Engine) -> None:
        state: Any = engine.state
        values = {**state.metrics, "learning_rate": getattr(state, "learning_rate", None)}
        parts = [f"{name} {value:.4g}" for name, value in values.items() if value is not None]
        if 0 < getattr(state, "best_metric_epoch", -1) < state.epoch:
            best = f"best {state.key_metric_name} {state.best_metric:.4g} in epoch {state.best_metric_epoch}"
            parts.append(best)
        _log.info("epoch %d, %s: %s", state.epoch, self.phase, ", ".join(parts))


class Nothing:
    """Does nothing, where a configuration has a place for a handler and a task has none."""

    def attach(self, engine: Engine) -> None:
        """Leave ``engine`` as it is."""
