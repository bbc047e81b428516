from __future__ import annotations

import json
import math
import stat

import pytest
import torch
from ignite.engine import Engine

from monai_fedlora.engines import predictions as module
from monai_fedlora.engines.predictions import MetricsWriter, PredictionWriter
from monai_fedlora.errors import ConfigError, DataError


def run(writer: PredictionWriter, rows: list[list[float]]) -> None:
    def step(engine, batch) -> list[dict]:
        engine.state.batch = [{"subject": f"s,{i}", "label": i % 2} for i in batch]
        return [{"pred": torch.tensor(rows[i])} for i in batch]

    engine = Engine(step)
    writer.attach(engine)
    for _ in range(2):
        engine.run([[0, 1], [2]])


def test_one_row_per_study_in_order(tmp_path) -> None:
    run(PredictionWriter(output_dir=tmp_path, classes=["NOR", "ABN"]), [[0.25, 0.75], [0.6, 0.4], [0.5, 0.5]])
    path = tmp_path / "predictions.csv"
    assert path.read_text().splitlines() == [
        "study,NOR,ABN,prediction",
        '"s,0",0.250000,0.750000,ABN',
        '"s,1",0.600000,0.400000,NOR',
        '"s,2",0.500000,0.500000,NOR',
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_true_class_may_be_added(tmp_path) -> None:
    writer = PredictionWriter(output_dir=tmp_path, classes=["NOR", "ABN"], filename="test.csv", labels=True)
    run(writer, [[0.25, 0.75], [0.6, 0.4], [0.5, 0.5]])
    lines = (tmp_path / "test.csv").read_text().splitlines()
    assert lines[0] == "study,NOR,ABN,prediction,label"
    assert [line.rsplit(",", 1)[1] for line in lines[1:]] == ["NOR", "ABN", "NOR"]


@pytest.mark.parametrize(("row", "error"), [([0.2, 0.3, 0.5], ConfigError), ([math.nan, 1.0], DataError)])
def test_a_wrong_prediction_leaves_no_file(tmp_path, row: list[float], error: type[Exception]) -> None:
    with pytest.raises(error):
        run(PredictionWriter(output_dir=tmp_path, classes=["NOR", "ABN"]), [[0.5, 0.5], row, row])
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="without torchrun"):
        PredictionWriter(output_dir=tmp_path, classes=["NOR", "ABN"])


def test_metrics_are_written_as_json(tmp_path) -> None:
    def step(engine, _batch) -> None:
        engine.state.metric_details = {"auroc": None, "n": 3}

    engine = Engine(step)
    MetricsWriter(output_dir=tmp_path).attach(engine)
    engine.run([0])
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"auroc": None, "n": 3}
