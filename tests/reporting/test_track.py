"""What trackers are given, against the record's own numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from monai_fedlora.errors import ConfigError
from monai_fedlora.reporting import track
from monai_fedlora.reporting.record import Agreement, Answer, Metrics, Record, Round
from monai_fedlora.reporting.track import Number, numbers, to_mlflow, to_tensorboard
from monai_fedlora.site_report import PERSONAL
from monai_fedlora.tracker_names import check_trackers


@pytest.fixture
def record() -> Record:
    def tested(value: float) -> Mapping[str, Metrics]:
        return {PERSONAL: Metrics(values={"auroc": value})}

    answers = {
        "a": Answer(cases=3, train_loss=0.5, seconds=2.0, sent=10, received=9, validation=tested(0.75)),
        "b": Answer(cases=3, train_loss=None, validation={PERSONAL: Metrics()}),
    }
    agreement = Agreement(sites=("a",), norms={"a": 1.5}, cosines={})
    return Record(
        plan={"experiment": "two"}, sites=("a", "b"), classes=("x", "y"), status="finished", last=1,
        rounds=(Round(number=0, score=0.25, answers=answers, agreement=agreement),),
        final={"a": Answer(test=tested(0.875))}, refused=(), payload=8, seconds=3.0, version="0.1.0",
    )  # fmt: skip


EXPECTED = {
    Number("score", 0, 0.25),
    Number("a/train_loss", 0, 0.5),
    Number("a/seconds", 0, 2.0),
    Number("a/sent", 0, 10.0),
    Number("a/received", 0, 9.0),
    Number("a/validation/personal/auroc", 0, 0.75),
    Number("a/change_norm", 0, 1.5),
    Number("a/test/personal/auroc", 1, 0.875),
}


def test_numbers_are_those_of_the_record_without_what_is_unknown(record: Record) -> None:
    found = list(numbers(record))
    assert set(found) == EXPECTED
    assert len(found) == len(EXPECTED)


def test_tensorboard_holds_the_same_numbers(record: Record, tmp_path: Path) -> None:
    to_tensorboard(record, tmp_path / "events")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {Number(tag, event.step, event.value) for tag in tags for event in events.Scalars(tag)} == EXPECTED


class Client:
    """What of MLflow's client is used."""

    def __init__(self) -> None:
        self.logged: list[Any] = []
        self.ended: list[str] = []

    def get_experiment_by_name(self, name: str) -> None:
        assert name == "two"

    def create_experiment(self, name: str) -> str:
        return f"experiment {name}"

    def create_run(self, experiment: str, run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run of {experiment}"))

    def log_batch(self, run: str, metrics: list[Any]) -> None:
        assert run == "run of experiment two"
        assert len(metrics) <= 3
        self.logged += metrics

    def set_terminated(self, run: str) -> None:
        self.ended.append(run)


def test_mlflow_gets_the_same_numbers_in_messages_that_it_takes(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, module, entities = Client(), ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient = lambda tracking_uri: client  # type: ignore[attr-defined]
    entities.Metric = lambda key, value, timestamp, step: Number(key, step, value)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(track, "_AT_ONCE", 3)
    to_mlflow(record, "sqlite:///anywhere.db")
    assert set(client.logged) == EXPECTED
    assert client.ended == ["run of experiment two"]


def test_mlflow_itself_keeps_the_same_numbers(record: Record, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    to_mlflow(record, uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("two").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    kept = {
        Number(name, point.step, point.value)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    }
    assert kept == EXPECTED


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"mlflow is not installed.*tracking"):
        check_trackers(["mlflow"])
