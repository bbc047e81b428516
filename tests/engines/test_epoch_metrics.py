from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from monai_fedlora.engines.epoch_metrics import ClassificationMetrics
from monai_fedlora.engines.metrics import METRICS, classification_metrics
from monai_fedlora.errors import ConfigError, DataError


def run(metric: ClassificationMetrics, batches: list) -> Engine:
    engine = Engine(lambda _, batch: batch)
    metric.attach(engine, "chosen")
    engine.run(batches)
    return engine


def items(probabilities: torch.Tensor, labels: list[int]) -> list[dict]:
    return [{"pred": p, "label": torch.tensor(y)} for p, y in zip(probabilities, labels, strict=True)]


def test_an_epoch_is_scored_as_a_whole_and_the_key_metric_is_named() -> None:
    probabilities = torch.softmax(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = [0, 1, 1, 2, 0, 2, 1]
    whole = items(probabilities, labels)
    engine = run(ClassificationMetrics(key="auroc"), [whole[:4], whole[4:]])
    expected = classification_metrics(probabilities, labels)
    assert engine.state.metrics == {**{name: expected[name] for name in METRICS}, "chosen": expected["auroc"]}
    assert engine.state.metric_details == expected


def test_a_second_epoch_starts_from_nothing() -> None:
    engine = Engine(lambda _, batch: batch)
    ClassificationMetrics().attach(engine, "chosen")
    batch = items(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), [0, 1])
    engine.run([batch], max_epochs=3)
    assert engine.state.metric_details["n"] == 2


def test_an_undefined_value_is_none() -> None:
    engine = run(ClassificationMetrics(key="auroc"), [items(torch.tensor([[0.9, 0.1]]), [0])])
    assert engine.state.metrics["chosen"] is None


def test_smaller_is_better_only_for_the_calibration_error() -> None:
    assert ClassificationMetrics(key="ece").better(0.1, 0.2)
    assert ClassificationMetrics(key="mcc").better(0.2, 0.1)
    assert not ClassificationMetrics(key="mcc").better(0.1, 0.1)


def test_an_unknown_key_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="'f1' is not a metric; choose from balanced_accuracy"):
        ClassificationMetrics(key="f1")


def test_no_case_is_an_error() -> None:
    with pytest.raises(DataError, match="no case"):
        ClassificationMetrics().compute()
