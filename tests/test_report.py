"""A report passes if it is a few named numbers; anything else anywhere in it refuses it whole."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import PrivacyError
from monai_fedlora.report import check_report
from tests.helpers import through_json

counts = st.integers(0, 10_000)
scores = st.none() | st.floats(-1, 1) | st.integers(-1, 1)
matrices = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(counts, min_size=n, max_size=n), min_size=n, max_size=n)
)
metrics = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc", "ece", "accuracy"], scores),
        "n": counts,
        "confusion_matrix": matrices,
    },
)
views = st.fixed_dictionaries({}, optional={"private_on": metrics, "private_off": metrics})
reports = st.fixed_dictionaries(
    {},
    optional={
        "round": counts,
        "cases": counts,
        "seconds": st.floats(0, 1e6) | counts,
        "train_loss": st.floats(-1e6, 1e6),
        "validation": views,
        "test": views,
    },
)


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a nested value, as a container and a key in it."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    nested = [slot for _, child in pairs if isinstance(child, (dict, list)) for slot in slots(child)]
    return [(value, key) for key, _ in pairs] + nested


@given(reports)
def test_a_legal_report_passes(report: dict[str, Any]) -> None:
    check_report(report)
    check_report(through_json(report))


surprises = (
    st.text()
    | st.binary()
    | st.booleans()
    | st.sampled_from([float("nan"), float("inf"), -float("inf"), 10**400, -(10**30), 2**63])
    | st.builds(np.float64, st.floats(-1, 1))
    | st.builds(np.int64, counts)
    | st.tuples(counts)
    | st.lists(st.text(), min_size=1)
    | st.dictionaries(st.text(), st.text(), min_size=1)
)


@given(st.data(), reports, surprises)
def test_a_surprise_anywhere_is_refused(data: st.DataObject, report: dict[str, Any], surprise: Any) -> None:
    places = slots(report)
    if not places:
        return
    container, key = data.draw(st.sampled_from(places))
    container[key] = surprise
    with pytest.raises(PrivacyError):
        check_report(report)


@given(st.data(), reports, st.text(), scores | st.text())
def test_an_undeclared_entry_anywhere_is_refused(data: st.DataObject, report: Any, key: str, value: Any) -> None:
    declared = {"private_on", "private_off", "confusion_matrix", "n", "round", "cases", "seconds", "train_loss"}
    declared |= {"validation", "test", "balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc", "ece"}
    if key in declared | {"accuracy"}:
        return
    containers = [report] + [c[k] for c, k in slots(report) if isinstance(c[k], dict)]
    data.draw(st.sampled_from(containers))[key] = value
    with pytest.raises(PrivacyError):
        check_report(report)


@given(st.none() | st.text() | st.integers() | st.lists(st.integers()))
def test_a_report_that_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(PrivacyError):
        check_report(value)


@pytest.mark.parametrize(
    "matrix",
    [
        [],
        [[]],
        [[1, 2]],
        [[1, 2], [3]],
        [1, 2],
        [[1, -1], [0, 0]],
        [[1.0, 0], [0, 0]],
        [[None, 0], [0, 0]],
        np.zeros((2, 2), int),
        [[0] * 200] * 200,
    ],
    ids=lambda matrix: f"{type(matrix).__name__}-{len(matrix)}",
)
def test_a_confusion_matrix_is_small_square_and_counts(matrix: Any) -> None:
    with pytest.raises(PrivacyError, match="confusion_matrix"):
        check_report({"test": {"private_on": {"confusion_matrix": matrix}}})


@pytest.mark.parametrize("name", ["balanced_accuracy", "auroc", "mcc", "ece"])
@pytest.mark.parametrize("value", [1.01, -1.01, 1e308, 10**400])
def test_a_metric_outside_its_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(PrivacyError, match=name):
        check_report({"validation": {"private_on": {name: value}}})


@pytest.mark.parametrize("name", ["round", "cases"])
@pytest.mark.parametrize("value", [-1, 1.0, 2**40, int.from_bytes(b"a whole sentence about a patient")])
def test_a_count_is_whole_not_negative_and_no_message_in_disguise(name: str, value: float) -> None:
    with pytest.raises(PrivacyError, match=name):
        check_report({name: value})


def test_a_refused_report_does_not_tell_its_values() -> None:
    for report in (
        {"seconds": "/data/patient007.nii"},
        {"test": {"private_on": {"auroc": "patient007"}}},
        {"test": "patient007"},
    ):
        with pytest.raises(PrivacyError) as caught:
            check_report(copy.deepcopy(report))
        assert "patient007" not in str(caught.value)


def test_what_the_metrics_compute_may_be_reported() -> None:
    from monai_fedlora.engines.metrics import classification_metrics

    values = classification_metrics([[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], [1, 0, 0])
    undefined = classification_metrics([[0.2, 0.8]], [1])
    check_report(json.loads(json.dumps({"test": {"private_on": values, "private_off": undefined}})))
    check_report({"test": {"private_on": values}})
