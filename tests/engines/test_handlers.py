from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from ignite.engine import Engine

from monai_fedlora.engines import handlers as module
from monai_fedlora.engines.handlers import EarlyStopping, EpochLog, Progress, Validation
from monai_fedlora.errors import ConfigError


class Evaluator:
    """Counts validations; its best epoch is given."""

    def __init__(self, best: int = -1) -> None:
        self.state = SimpleNamespace(best_metric_epoch=best)
        self.epochs: list[int] = []

    def run(self, global_epoch: int) -> None:
        self.epochs.append(global_epoch)


def run(handler, epochs: int = 6) -> Engine:
    engine = Engine(lambda *_: [{"loss": 0.5}])
    handler.attach(engine)
    engine.run([0], max_epochs=epochs)
    return engine


@pytest.mark.parametrize(("interval", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (0, [])])
def test_validation_runs_at_its_interval_and_is_told_the_epoch(interval: int, expected: list[int]) -> None:
    evaluator = Evaluator()
    run(Validation(evaluator=evaluator, interval=interval))
    assert evaluator.epochs == expected


@pytest.mark.parametrize(("best", "patience", "last"), [(2, 3, 5), (1, 1, 2), (5, 3, 6), (-1, 1, 6), (1, 0, 6)])
def test_training_stops_when_nothing_improves(best: int, patience: int, last: int) -> None:
    """An evaluator that never ran (-1) stops nothing, and neither does a patience of 0."""
    assert run(EarlyStopping(evaluator=Evaluator(best), patience=patience)).state.epoch == last


def test_negative_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="val_interval"):
        Validation(evaluator=Evaluator(), interval=-1)
    with pytest.raises(ConfigError, match="early_stopping_patience"):
        EarlyStopping(evaluator=Evaluator(), patience=-1)


@pytest.mark.parametrize(("terminal", "enabled"), [(True, True), (True, False), (False, True)])
def test_progress_shows_on_a_terminal_only(monkeypatch, terminal: bool, enabled: bool) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    run(Progress(enabled=enabled), epochs=1)
    assert bool(stream.getvalue()) == (terminal and enabled)


def test_an_epoch_is_one_line_in_the_log_of_the_first_process(monkeypatch, caplog) -> None:
    caplog.set_level("INFO", logger="monai_fedlora")
    engine = Engine(lambda *_: None)
    engine.state.metrics = {"auroc": 0.912345, "sensitivity": None}
    engine.state.key_metric_name, engine.state.best_metric, engine.state.best_metric_epoch = "auroc", 0.95, 1
    EpochLog(phase="validation").attach(engine)
    monkeypatch.setattr(module, "is_main", lambda: False)
    EpochLog(phase="elsewhere").attach(engine)
    engine.run([0], max_epochs=2)
    assert caplog.messages == [
        "epoch 1, validation: auroc 0.9123",
        "epoch 2, validation: auroc 0.9123, best auroc 0.95 in epoch 1",
    ]
