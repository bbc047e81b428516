from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from monai_fedlora.engines.loss import balanced_weights, cross_entropy
from monai_fedlora.errors import ConfigError, DataError


def test_balanced_weights_agree_with_scikit_learn() -> None:
    labels = [0, 0, 0, 1, 2, 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(labels, 3) == pytest.approx(list(expected))


def test_an_absent_class_keeps_weight_one() -> None:
    assert balanced_weights([0, 0, 0, 2], 3) == pytest.approx([2 / 3, 1.0, 2.0])


def test_the_loss_is_the_weighted_smoothed_cross_entropy() -> None:
    logits = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 1, 1, 0])
    cases = [{"label": int(label)} for label in labels]
    loss = cross_entropy(num_classes=2, cases=cases, class_weights="balanced", label_smoothing=0.2)
    weights = torch.tensor([5 / 4, 5 / 6])
    target = 0.8 * torch.nn.functional.one_hot(labels, 2) + 0.1
    per_case = -(target * weights * torch.log_softmax(logits, 1)).sum(1)
    assert loss(logits, labels) == pytest.approx(float(per_case.sum() / weights[labels].sum()), rel=1e-5)


def test_weights_may_be_given_or_left_out() -> None:
    assert cross_entropy(num_classes=2).weight is None
    assert cross_entropy(num_classes=2, class_weights=[1, 3]).weight.tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    "settings",
    [{"class_weights": [1.0]}, {"class_weights": [1.0, 0.0]}, {"class_weights": "equal"}, {"label_smoothing": 1.0}],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        cross_entropy(num_classes=2, **settings)


@pytest.mark.parametrize("labels", [[], [0, 2], [-1]])
def test_labels_that_are_not_classes_are_refused(labels: list[int]) -> None:
    with pytest.raises(DataError):
        cross_entropy(num_classes=2, cases=[{"label": y} for y in labels], class_weights="balanced")
