"""Classification: one label per case, one logit per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Activationsd, Compose
from torch import nn

from monai_fedlora.data.collected import LABEL
from monai_fedlora.engines.dataset import prepare_cases
from monai_fedlora.engines.epoch_metrics import ClassificationMetrics
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.metrics import METRICS
from monai_fedlora.engines.predictions import PredictionWriter
from monai_fedlora.site_report import MetricsForm
from monai_fedlora.tasks.task import CONFUSION, EXPORT, FEATURES, MEMBERSHIP, OUTPUTS, SCORE, Task

_WORDS = {
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "mcc": "MCC",
    "ece": "ECE",
}
assert set(_WORDS) == set(METRICS)


def _loss(
    *, names: int, cases: Sequence[Mapping[str, Any]], class_weights: Any, label_smoothing: float, device: Any
) -> nn.Module:
    return cross_entropy(
        num_classes=names, cases=cases, class_weights=class_weights, label_smoothing=label_smoothing, device=device
    )


def _check_output(output: tuple[int, ...], image: tuple[int, ...]) -> str | None:
    if len(output) != 2 or output[1] < 2:
        return "a classifier gives one logit per class, (1, classes), and there are at least two"
    return None


def _metrics(key: str, names: Sequence[str]) -> ClassificationMetrics:
    return ClassificationMetrics(key=key)


def _postprocessing() -> Any:
    return Compose([Activationsd(keys="pred", softmax=True)])


def _predictions(*, output_dir: Any, names: Sequence[str], filename: str, labels: bool) -> PredictionWriter:
    return PredictionWriter(output_dir=output_dir, classes=names, filename=filename, labels=labels)


def _form(names: Sequence[str]) -> MetricsForm:
    return MetricsForm(classes=len(names))


def _scores(output: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """1 for a right prediction and 0 for a wrong one, and the probability of each class."""
    probabilities = torch.as_tensor(output["pred"]).flatten()
    right = int(probabilities.argmax()) == int(output["label"])
    by_name = zip(names, probabilities.tolist(), strict=True)
    return {SCORE: float(right), **{f"probability_{name}": value for name, value in by_name}}


CLASSIFICATION = Task(
    name="classification",
    named="classes",
    least_names=2,
    listed_as=("binary", "multiclass"),
    outputs=lambda names: names,
    check_output=_check_output,
    collected=LABEL,
    prepare=prepare_cases,
    loss=_loss,
    metrics=_metrics,
    postprocessing=_postprocessing,
    predictions=_predictions,
    form=_form,
    key="balanced_accuracy",
    measures=_WORDS,
    scores=_scores,
    by_class=True,
    sections=frozenset({OUTPUTS, FEATURES, CONFUSION, MEMBERSHIP, EXPORT}),
)
