from __future__ import annotations

import pytest
import torch
from monai.transforms import Activationsd

from monai_fedlora.engines.dataset import case_loader
from monai_fedlora.engines.epoch_metrics import ClassificationMetrics
from monai_fedlora.engines.evaluator import CaseEvaluator
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import ConfigError, OutOfMemory


@pytest.fixture
def make_evaluator(make_network, make_cases):
    def make(n: int = 7, **settings) -> CaseEvaluator:
        arguments = {
            "device": "cpu",
            "val_data_loader": case_loader(make_cases(n), batch_size=3),
            "network": make_network(),
            "key_val_metric": ClassificationMetrics(key="auroc"),
            "postprocessing": Activationsd(keys="pred", softmax=True),
        }
        return CaseEvaluator(**{**arguments, **settings})

    return make


def test_it_scores_the_softmax_of_the_network_in_evaluation_mode(make_evaluator, make_cases) -> None:
    evaluator = make_evaluator()
    evaluator.network.train()
    evaluator.run(global_epoch=4)
    with torch.no_grad():
        probabilities = torch.softmax(evaluator.network.eval()(make_cases(7).images), dim=1)
    expected = classification_metrics(probabilities, [i % 2 for i in range(7)])
    measured = evaluator.state.metric_details
    assert measured["confusion_matrix"] == expected["confusion_matrix"]
    assert measured["auroc"] == pytest.approx(expected["auroc"])
    assert measured["ece"] == pytest.approx(expected["ece"], abs=1e-6)
    assert evaluator.state.key_metric_name == "auroc"
    assert evaluator.state.best_metric == measured["auroc"]
    assert evaluator.state.best_metric_epoch == 4


def test_a_smaller_calibration_error_is_the_better_one(make_evaluator) -> None:
    evaluator = make_evaluator(key_val_metric=ClassificationMetrics(key="ece"))
    evaluator.run(1)
    evaluator.state.best_metric = -1.0  # smaller than any
    evaluator.run(2)
    assert evaluator.state.best_metric_epoch == 1


def test_it_works_without_labels(make_evaluator, make_cases) -> None:
    class Unlabelled(make_cases):
        def __getitem__(self, i: int) -> dict:
            return {key: value for key, value in super().__getitem__(i).items() if key != "label"}

    evaluator = make_evaluator(val_data_loader=case_loader(Unlabelled(4), batch_size=4), key_val_metric=None)
    evaluator.run()
    assert len(evaluator.state.output) == 4
    assert float(evaluator.state.output[0]["pred"].sum()) == pytest.approx(1.0)


def test_bf16_predictions_come_back_in_float32(make_evaluator) -> None:
    evaluator = make_evaluator(mixed_precision="bf16")
    seen: list[torch.dtype] = []
    evaluator.network.head[2].register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    evaluator.run()
    assert set(seen) == {torch.bfloat16}
    assert evaluator.state.output[0]["pred"].dtype == torch.float32


def test_too_little_memory_names_the_settings_that_help(make_evaluator, monkeypatch) -> None:
    evaluator = make_evaluator()

    def full(*_args, **_options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(torch.nn.functional, "linear", full)
    with pytest.raises(OutOfMemory, match=r"evaluating on cpu .*lower batch_size, or"):
        evaluator.run()


def test_an_empty_split_leaves_no_metric_of_an_earlier_run(make_evaluator) -> None:
    evaluator = make_evaluator(n=0)
    evaluator.state.metrics = {"auroc": 0.9}
    evaluator.run()
    assert evaluator.state.metrics == {}
    assert evaluator.state.metric_details == {}


def test_an_unknown_precision_is_refused(make_evaluator) -> None:
    with pytest.raises(ConfigError, match="choose from off, tf32, bf16"):
        make_evaluator(mixed_precision=True)
