from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from monai_fedlora.engines import trackers as module
from monai_fedlora.engines.trackers import Trackers
from monai_fedlora.errors import ConfigError


def run(tracker: Trackers, undefined: Any = None) -> Engine:
    def step(engine, _batch) -> list[dict]:
        engine.state.learning_rate = 0.1
        engine.state.metrics.update(auroc=0.75, ece=torch.tensor(0.5), sensitivity=undefined)
        return [{"loss": 0.5}]

    engine = Engine(step)
    tracker.attach(engine)
    engine.run([0, 0], max_epochs=2)
    return engine


class Client:
    """MLflow's client, as far as MONAI's handler uses it; like the real one, it refuses a metric without a value."""

    def __init__(self, **settings: Any) -> None:
        self.logged: list[tuple[str, float, int]] = []
        self.ended: list[str] = []

    def log_batch(self, *, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        for metric in metrics:
            if metric.value is None:
                raise ValueError("Missing value for required parameter")
            self.logged.append((metric.key, float(metric.value), metric.step))

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="0", lifecycle_stage="active")

    def search_runs(self, experiment: str) -> list[Any]:
        return []

    def create_run(self, *, experiment_id: str, run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id="r"), data=SimpleNamespace(params={}))

    def get_run(self, run_id: str) -> Any:
        return self.create_run(experiment_id="0", run_name="r")

    def set_terminated(self, run_id: str, status: str) -> None:
        self.ended.append(run_id)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """MLflow without MLflow: what is sent to it."""
    made = Client()
    entities = SimpleNamespace(
        Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
        Param=lambda key, value: SimpleNamespace(key=key, value=value),
        RunStatus=SimpleNamespace(FINISHED="FINISHED", to_string=str),
        LifecycleStage=SimpleNamespace(ACTIVE="active"),
    )
    fake = SimpleNamespace(MlflowClient=lambda **settings: made, entities=entities)
    monkeypatch.setattr("monai.handlers.mlflow_handler.mlflow", fake)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleType(name))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


UNDEFINED = [None, float("nan"), float("inf"), torch.tensor(float("nan")), [[3, 1], [0, 2]]]


@pytest.mark.parametrize("undefined", UNDEFINED, ids=str)
@pytest.mark.parametrize("phase", ["train", "validation"])
def test_mlflow_gets_metrics_with_a_value_alone(tmp_path, client, undefined, phase) -> None:
    engine = run(Trackers(names=["mlflow"], output_dir=tmp_path, phase=phase), undefined)
    epochs = [entry for entry in client.logged if entry[0] in ("auroc", "ece", "sensitivity")]
    assert epochs == [("auroc", 0.75, 1), ("ece", 0.5, 1), ("auroc", 0.75, 2), ("ece", 0.5, 2)]
    assert ("learning_rate" in {entry[0] for entry in client.logged}) == (phase == "train")
    assert engine.state.metrics["sensitivity"] is undefined


def test_mlflow_run_ends_with_the_training(tmp_path, client) -> None:
    run(Trackers(names=["mlflow"], output_dir=tmp_path, phase="validation"))
    assert client.ended == []
    run(Trackers(names=["mlflow"], output_dir=tmp_path, phase="train"))
    assert client.ended == ["r"]


@pytest.mark.slow
def test_mlflow_itself_and_tensorboard_hold_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for _ in range(2):
        run(Trackers(names=["mlflow", "tensorboard"], output_dir=tmp_path, phase="train"), float("nan"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "train")).Reload()
    with sqlite3.connect(tmp_path / "mlruns.db") as database:
        runs = database.execute("select run_uuid, status from runs").fetchall()
        found = database.execute("select key, step, value from metrics where run_uuid = ?", (runs[0][0],)).fetchall()
    assert [status for _, status in runs] == ["FINISHED", "FINISHED"]
    seen = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    assert {(key, step): value for key, step, value in found} == pytest.approx(seen)
    assert ("sensitivity", 1) not in seen


def test_tensorboard_gets_metrics_loss_and_learning_rate(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    run(Trackers(names=["tensorboard"], output_dir=tmp_path, phase="train"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "train")).Reload()
    assert set(events.Tags()["scalars"]) == {"auroc", "ece", "learning_rate", "train_loss_batch"}
    assert [(e.step, e.value) for e in events.Scalars("auroc")] == [(1, 0.75), (2, 0.75)]


def test_nothing_is_recorded_without_a_name_or_outside_the_first_process(tmp_path, monkeypatch) -> None:
    run(Trackers(names=[], output_dir=tmp_path / "a", phase="validation"))
    monkeypatch.setattr(module, "is_main", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleType(name))
    run(Trackers(names=["tensorboard"], output_dir=tmp_path / "a", phase="validation"))
    assert not (tmp_path / "a").exists()


def test_mlflow_writes_below_the_run(tmp_path, monkeypatch) -> None:
    given: dict = {}

    class Handler:
        def __init__(self, **settings) -> None:
            given.update(settings)

        def attach(self, engine) -> None:
            given["attached"] = True

    monkeypatch.setattr(module, "_MLFlow", Handler)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleType(name))
    Trackers(names=["mlflow"], output_dir=tmp_path / "site_1", phase="train").attach(Engine(lambda *_: None))
    assert given["attached"]
    assert given["tracking_uri"].startswith("sqlite:///")
    assert given["tracking_uri"].endswith("site_1/mlruns.db")
    assert given["run_name"] == "site_1"


def test_a_tracker_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'monai-fedlora\[tracking\]'"):
        Trackers(names=["mlflow"], output_dir=tmp_path, phase="train")


def test_an_unknown_tracker_is_refused(tmp_path) -> None:
    assert "wandb" not in sys.modules
    with pytest.raises(ConfigError, match="choose from tensorboard, mlflow"):
        Trackers(names=["wandb"], output_dir=tmp_path, phase="train")
