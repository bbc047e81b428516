from __future__ import annotations

import sys
from types import ModuleType

import pytest
from ignite.engine import Engine

from monai_fedlora.engines import trackers as module
from monai_fedlora.engines.trackers import Trackers
from monai_fedlora.errors import ConfigError


def run(tracker: Trackers) -> None:
    def step(engine, _batch) -> list[dict]:
        engine.state.learning_rate = 0.1
        engine.state.metrics.update(auroc=0.75, sensitivity=None)
        return [{"loss": 0.5}]

    engine = Engine(step)
    tracker.attach(engine)
    engine.run([0, 0], max_epochs=2)


def test_tensorboard_gets_metrics_loss_and_learning_rate(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    run(Trackers(names=["tensorboard"], output_dir=tmp_path, phase="train"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "train")).Reload()
    assert set(events.Tags()["scalars"]) == {"auroc", "learning_rate", "train_loss_batch"}
    assert [(e.step, e.value) for e in events.Scalars("auroc")] == [(1, 0.75), (2, 0.75)]


def test_nothing_is_recorded_without_a_name_or_outside_the_first_process(tmp_path, monkeypatch) -> None:
    run(Trackers(names=[], output_dir=tmp_path / "a", phase="validation"))
    monkeypatch.setattr(module, "is_main", lambda: False)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: ModuleType(name))
    run(Trackers(names=["tensorboard"], output_dir=tmp_path / "a", phase="validation"))
    assert not (tmp_path / "a").exists()


def test_mlflow_writes_below_the_run(tmp_path, monkeypatch) -> None:
    given: dict = {}

    class Handler:
        def __init__(self, **settings) -> None:
            given.update(settings)

        def attach(self, engine) -> None:
            given["attached"] = True

    monkeypatch.setattr(module, "MLFlowHandler", Handler)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: ModuleType(name))
    Trackers(names=["mlflow"], output_dir=tmp_path / "site_1", phase="train").attach(Engine(lambda *_: None))
    assert given["attached"]
    assert given["tracking_uri"].startswith("sqlite:///")
    assert given["tracking_uri"].endswith("site_1/mlruns.db")
    assert given["run_name"] == "site_1"


def test_a_tracker_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'monai-fedlora\[tracking\]'"):
        Trackers(names=["mlflow"], output_dir=tmp_path, phase="train")


def test_an_unknown_tracker_is_refused(tmp_path) -> None:
    assert "wandb" not in sys.modules
    with pytest.raises(ConfigError, match="choose from tensorboard, mlflow"):
        Trackers(names=["wandb"], output_dir=tmp_path, phase="train")
