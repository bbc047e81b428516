from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import DataError


@st.composite
def predictions(draw, min_classes: int = 2, max_classes: int = 5):
    classes = draw(st.integers(min_classes, max_classes))
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes, unique=True))
    labels = rng.choice(present, size=n)
    scores = rng.dirichlet(np.full(classes, 0.7), size=n)
    if draw(st.booleans()):  # ties
        scores = (np.round(scores * 8) + 1) / (np.round(scores * 8) + 1).sum(axis=1, keepdims=True)
    return scores, labels


def one_against_rest(values: list[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined else None


@pytest.mark.slow
@given(predictions())
@settings(max_examples=150, deadline=None)
def test_it_agrees_with_scikit_learn_even_when_classes_are_missing(case) -> None:
    scores, labels = case
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    ours = classification_metrics(scores, labels)

    confusion = reference.confusion_matrix(labels, predicted, labels=range(classes))
    assert ours["confusion_matrix"] == confusion.tolist()
    assert ours["n"] == len(labels)
    assert ours["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    recalls = reference.recall_score(labels, predicted, labels=sorted(set(labels)), average=None)
    assert ours["balanced_accuracy"] == (pytest.approx(np.mean(recalls)) if len(recalls) > 1 else None)
    assert ours["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, predicted))
    areas, specificities = [], []
    for c in range(classes):
        positive = labels == c
        if 0 < positive.sum() < len(labels):
            areas.append(reference.roc_auc_score(positive, scores[:, c]))
            specificities.append(reference.recall_score(~positive, predicted != c))
        else:
            areas.append(None)
            specificities.append(None)
    if classes == 2:
        by_class = dict(zip(sorted(set(labels)), recalls, strict=True))
        assert ours["sensitivity"] == pytest.approx(by_class.get(1))
        assert ours["specificity"] == pytest.approx(by_class.get(0))
        assert ours["auroc"] == pytest.approx(areas[1])
    else:
        assert ours["sensitivity"] == pytest.approx(np.mean(recalls))
        assert ours["specificity"] == pytest.approx(one_against_rest(specificities))
        assert ours["auroc"] == pytest.approx(one_against_rest(areas))


@given(predictions(), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_calibration_error_agrees_with_its_definition(case, n_bins: int) -> None:
    scores, labels = case
    confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
    expected = 0.0
    for low in np.linspace(0, 1, n_bins + 1)[:-1]:
        inside = (confidence > low) & (confidence <= np.linspace(0, 1, n_bins + 1)[1:][round(low * n_bins)])
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert classification_metrics(scores, labels, n_bins=n_bins)["ece"] == pytest.approx(expected, abs=1e-9)


@given(predictions(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_cases_changes_no_bit_and_nothing_is_nan(case, random) -> None:
    scores, labels = case
    order = list(range(len(labels)))
    random.shuffle(order)
    result = classification_metrics(scores, labels)
    assert result == classification_metrics(scores[order], labels[order])
    json.dumps(result, allow_nan=False)
    assert not any(isinstance(v, float) and math.isnan(v) for v in result.values())


def test_a_site_with_one_class_has_no_auroc_no_specificity_and_no_balanced_accuracy() -> None:
    result = classification_metrics(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]))
    assert result["auroc"] is None
    assert result["specificity"] is None
    assert result["balanced_accuracy"] is None
    assert result["sensitivity"] == result["accuracy"] == 0.5
    assert result["mcc"] == 0.0


def test_tensors_of_any_precision_are_taken() -> None:
    scores = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    expected = classification_metrics(scores.numpy(), np.array([1, 0, 0]))
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert classification_metrics(scores.to(dtype), torch.tensor([1, 0, 0])) == expected


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), "no case"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "1 of 1 predictions are not finite"),
        (np.array([[2.0, -1.0]]), np.array([0]), "softmax"),
        (np.array([[0.3, 0.3]]), np.array([0]), "softmax"),
        (np.array([[0.5, 0.5]]), np.array([2]), "whole numbers"),
        (np.array([[0.5, 0.5]]), np.array([0.5]), "whole numbers"),
        (np.array([0.5, 0.5]), np.array([0, 1]), "shape"),
        (np.array([[1.0]]), np.array([0]), "shape"),
    ],
)
def test_what_is_not_a_set_of_predictions_is_refused(scores, labels, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification_metrics(scores, labels)
