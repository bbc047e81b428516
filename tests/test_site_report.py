"""A report passes if it is a few named numbers that say little; anything else anywhere in it refuses it whole."""

from __future__ import annotations

import copy
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.engines.metrics import METRICS, classification_metrics
from monai_fedlora.errors import PrivacyError
from monai_fedlora.site_report import (
    MOST_CASES,
    MOST_CLASSES,
    MetricsForm,
    Report,
    current_views,
    report_bits,
    report_nbytes,
    round_report,
)
from tests.helpers import through_json

counts = st.integers(0, 10_000)


def checked(value: Any, **settings: Any) -> dict[str, Any]:
    """What is left of a report that passes."""
    return Report.parse(value, **settings).to_json()


DERIVED = ("balanced_accuracy", "sensitivity", "specificity", "mcc", "accuracy")


@st.composite
def views(draw: st.DrawFn, classes: int) -> dict[str, Any]:
    """What a site says of a split: the metrics of random predictions, and some entries left out."""
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=12))
    found = {}
    for view in draw(st.sampled_from([(), ("personal",), ("shared",), ("personal", "shared")])):
        scores = np.array(
            draw(st.lists(st.integers(1, 9), min_size=len(labels) * classes, max_size=len(labels) * classes))
        )
        scores = scores.reshape(len(labels), classes)
        metrics = classification_metrics(scores / scores.sum(axis=1, keepdims=True), labels)
        left_out = draw(st.sets(st.sampled_from([*METRICS, "n"])))
        if draw(st.booleans()):
            left_out |= {*DERIVED, "confusion_matrix"}
        found[view] = {name: value for name, value in metrics.items() if name not in left_out}
    return found


def reports(classes: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "round": counts,
            "cases": counts,
            "seconds": st.floats(0, 1e6) | counts,
            "train_loss": st.floats(-1e6, 1e6),
            "validation": views(classes),
            "test": views(classes),
        },
    ).map(round_report)


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a nested value, as a container and a key in it."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    nested = [slot for _, child in pairs if isinstance(child, (dict, list)) for slot in slots(child)]
    return [(value, key) for key, _ in pairs] + nested


@given(st.integers(2, 4).flatmap(lambda classes: st.tuples(st.just(classes), reports(classes))))
def test_a_legal_report_passes(made: tuple[int, dict[str, Any]]) -> None:
    classes, report = made
    assert checked(report, form=MetricsForm(classes=classes)).items() >= report.items() or "n" in str(report)
    assert checked(through_json(report), form=MetricsForm(classes=classes)) == checked(
        report, form=MetricsForm(classes=classes)
    )


surprises = (
    st.text()
    | st.binary()
    | st.booleans()
    | st.sampled_from([float("nan"), float("inf"), -float("inf"), 10**400, -(10**30), 2**63, 0.123456789])
    | st.builds(np.float64, st.floats(-1, 1))
    | st.builds(np.int64, counts)
    | st.tuples(counts)
    | st.lists(st.text(), min_size=1)
    | st.dictionaries(st.text(), st.text(), min_size=1)
)


@given(st.data(), reports(), surprises)
def test_a_surprise_anywhere_is_refused(data: st.DataObject, report: dict[str, Any], surprise: Any) -> None:
    places = slots(report)
    if not places:
        return
    container, key = data.draw(st.sampled_from(places))
    container[key] = surprise
    with pytest.raises(PrivacyError):
        checked(report, form=MetricsForm(classes=3))


@given(st.data(), reports(), st.text(), st.none() | st.floats(-1, 1) | st.text())
def test_an_undeclared_entry_anywhere_is_refused(data: st.DataObject, report: Any, key: str, value: Any) -> None:
    declared = {"personal", "shared", "confusion_matrix", "n", "round", "cases", "seconds", "train_loss"}
    if key in declared | {"validation", "test", *METRICS}:
        return
    containers = [report] + [c[k] for c, k in slots(report) if isinstance(c[k], dict)]
    data.draw(st.sampled_from(containers))[key] = value
    with pytest.raises(PrivacyError):
        checked(report, form=MetricsForm(classes=3))


@given(st.none() | st.text() | st.integers() | st.lists(st.integers()))
def test_a_report_that_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(PrivacyError):
        checked(value, form=MetricsForm(classes=2))


@pytest.mark.parametrize(
    "matrix",
    [
        [],
        [[]],
        [[1]],
        [[1, 2]],
        [[1, 2], [3]],
        [1, 2],
        [[1, -1], [0, 0]],
        [[1.0, 0], [0, 0]],
        [[None, 0], [0, 0]],
        [[0] * 3] * 3,
        [[MOST_CASES, MOST_CASES], [0, 0]],
        np.zeros((2, 2), int),
        [[0] * 32] * 32,
    ],
    ids=lambda matrix: f"{type(matrix).__name__}-{len(matrix)}",
)
def test_a_confusion_matrix_has_the_plans_classes_and_counts(matrix: Any) -> None:
    with pytest.raises(PrivacyError, match="confusion_matrix"):
        checked({"test": {"personal": {"confusion_matrix": matrix}}}, form=MetricsForm(classes=2))


def test_a_matrix_of_as_many_classes_as_a_plan_may_have_passes() -> None:
    matrix = np.eye(MOST_CLASSES, dtype=int).tolist()
    metrics = {"confusion_matrix": matrix, "accuracy": 1.0}
    found = checked({"validation": {"personal": metrics}}, form=MetricsForm(classes=MOST_CLASSES))
    assert found["validation"]["personal"]["n"] == MOST_CLASSES


def about(**metrics: Any) -> dict[str, Any]:
    matrix = {"confusion_matrix": [[3, 1], [2, 4]]}
    return {"validation": {"personal": {**matrix, **metrics}}}


@pytest.mark.parametrize("name", DERIVED)
def test_what_follows_from_the_matrix_has_to_follow(name: str) -> None:
    right = classification_metrics([[1, 0]] * 3 + [[0, 1]] + [[1, 0]] * 2 + [[0, 1]] * 4, [0] * 4 + [1] * 6)[name]
    checked(round_report(about(**{name: right})), form=MetricsForm(classes=2))
    for value in (round(right + 0.0001, 4), round(right - 0.1, 4), None):
        with pytest.raises(PrivacyError, match="does not follow"):
            checked(about(**{name: value}), form=MetricsForm(classes=2))
    alone = round_report({"validation": {"personal": {name: right}}})
    with pytest.raises(PrivacyError, match="does not follow"):
        checked(alone, form=MetricsForm(classes=2))


def test_the_cases_are_those_of_the_matrix_and_of_the_other_view() -> None:
    with pytest.raises(PrivacyError, match="sum of the confusion matrix"):
        checked(about(n=11), form=MetricsForm(classes=2))
    for other in ({"n": 11}, {"confusion_matrix": [[4, 1], [1, 4]]}):
        report = about(n=10)
        report["validation"]["shared"] = other
        with pytest.raises(PrivacyError, match="the same cases"):
            checked(report, form=MetricsForm(classes=2))


@pytest.mark.parametrize("name", ["balanced_accuracy", "auroc", "mcc", "ece"])
@pytest.mark.parametrize("value", [1.01, -1.01, 1e308, 10**400])
def test_a_metric_outside_its_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(PrivacyError, match=name):
        checked({"validation": {"personal": {name: value}}}, form=MetricsForm(classes=2))


@pytest.mark.parametrize("name", ["round", "cases"])
@pytest.mark.parametrize("value", [-1, 1.0, 2**31 - 1, 2**40, int.from_bytes(b"a whole sentence about a patient")])
def test_a_count_is_whole_not_negative_and_no_message_in_disguise(name: str, value: float) -> None:
    with pytest.raises(PrivacyError, match=name):
        checked({name: value}, form=MetricsForm(classes=2))


@pytest.mark.parametrize("name", ["seconds", "train_loss"])
@pytest.mark.parametrize("value", [12.345, 0.00012345, 1e-9, 123456, 1e300])
def test_a_number_has_few_digits(name: str, value: float) -> None:
    with pytest.raises(PrivacyError, match=name):
        checked({name: value}, form=MetricsForm(classes=2))


def test_the_balanced_accuracy_of_one_class_that_an_earlier_version_gives_is_read_as_missing() -> None:
    metrics = {"confusion_matrix": [[0, 0], [1, 3]], "balanced_accuracy": 0.75}
    for value in (0.75, None):
        found = checked({"test": {"personal": {**metrics, "balanced_accuracy": value}}}, form=MetricsForm(classes=2))
        assert found["test"]["personal"]["balanced_accuracy"] is None
        stored = current_views({"private_on": {**metrics, "balanced_accuracy": value}})
        assert stored == {"personal": {**metrics, "balanced_accuracy": None}}
    with pytest.raises(PrivacyError, match="does not follow"):
        checked({"test": {"personal": {**metrics, "balanced_accuracy": 0.7}}}, form=MetricsForm(classes=2))
    both = {"confusion_matrix": [[1, 0], [1, 3]], "balanced_accuracy": 0.875}
    assert current_views({"personal": both, "shared": {}}) == {"personal": both, "shared": {}}


def test_while_a_site_trains_it_has_nothing_to_say_of_its_test_cases() -> None:
    checked({"test": {}}, form=MetricsForm(classes=2))
    with pytest.raises(PrivacyError, match="undeclared report entry 'test'"):
        checked({"test": {}}, form=MetricsForm(classes=2), splits=("validation",))


def test_a_refused_report_does_not_tell_its_values() -> None:
    for report in (
        {"seconds": "/data/patient007.nii"},
        {"test": {"personal": {"auroc": "patient007"}}},
        {"test": "patient007"},
    ):
        with pytest.raises(PrivacyError) as caught:
            checked(copy.deepcopy(report), form=MetricsForm(classes=2))
        assert "patient007" not in str(caught.value)


def test_what_the_metrics_compute_may_be_reported() -> None:
    values = classification_metrics([[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], [1, 0, 0])
    undefined = classification_metrics([[0.2, 0.8]], [1])
    checked(round_report(json.loads(json.dumps({"test": {"personal": values}}))), form=MetricsForm(classes=2))
    checked(round_report({"test": {"shared": undefined}}), form=MetricsForm(classes=2))


# ---- how much a report can say --------------------------------------------------------------------------


@given(reports(2), st.randoms(use_true_random=False))
def test_neither_order_nor_type_says_anything(report: dict[str, Any], shuffler: Any) -> None:
    def disturbed(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            shuffler.shuffle(keys)
            return {key: disturbed(value[key]) for key in keys}
        if type(value) is float:
            return -0.0 if value == 0 else int(value) if value.is_integer() else value
        return value

    one, other = checked(report, form=MetricsForm(classes=2)), checked(disturbed(report), form=MetricsForm(classes=2))
    assert json.dumps(one) == json.dumps(other)


@pytest.mark.slow
def test_no_more_reports_pass_than_the_stated_bits_allow() -> None:
    """Every report about two cases and two classes on a grid; that of one matrix is finer than what may pass."""
    grid = [None, *(round(place / 20_000, 6) for place in range(-20_000, 20_001, 4_999))]
    matrices = [
        [list(cells[:2]), list(cells[2:])] for cells in itertools.product(range(3), repeat=4) if sum(cells) <= 2
    ]
    passed = 0
    for matrix in [None, *matrices]:
        base = {} if matrix is None else {"confusion_matrix": matrix}
        for name in DERIVED:
            step = 1 if matrix == [[1, 0], [1, 0]] else 125
            values = {round(place / 10_000, 4) for place in range(-10_000, 10_001, step)} | {None}
            fit = sum(passes({**base, name: value}) for value in values)
            assert fit <= (0 if matrix is None else 2)
        passed += passes(base)
    assert passed == 1 + math.comb(2 + 4, 4)
    assert sum(passes({"auroc": value}) for value in grid) <= 10**4 + 2
    free = report_bits(form=MetricsForm(classes=2), cases=2) - report_bits(form=MetricsForm(classes=2), cases=0)
    assert free >= 2 * math.log2(math.comb(2 + 4, 4)) - 1e-9


def passes(metrics: dict[str, Any]) -> bool:
    try:
        checked({"validation": {"personal": metrics}}, form=MetricsForm(classes=2))
    except PrivacyError:
        return False
    return True


def test_a_report_says_less_than_a_fiftieth_of_what_it_could() -> None:
    """Four matrices of 32 x 32 counts below 2^31, and free floating-point numbers, were 16 kB a round."""
    before = 4 * (32 * 32 * 31 + 31 + 7 * 61) + 2 * 31 + 2 * 62
    assert before / 8 > 16_000
    assert report_bits(form=MetricsForm(classes=2), cases=100) < 300
    assert report_bits(form=MetricsForm(classes=2), cases=100) < before / 400
    assert report_bits(form=MetricsForm(classes=33), cases=100) < before / 50


@given(st.integers(2, 5).flatmap(lambda classes: st.tuples(st.just(classes), reports(classes))))
def test_no_report_takes_more_bytes_than_stated(made: tuple[int, dict[str, Any]]) -> None:
    import msgpack

    classes, report = made
    assert len(msgpack.packb(report)) <= report_nbytes(form=MetricsForm(classes=classes))


def test_the_longest_report_takes_no_more_bytes_than_stated() -> None:
    import msgpack

    for classes in (2, 33, MOST_CLASSES):
        matrix = [[MOST_CASES] * classes] * classes
        metrics = {**dict.fromkeys(METRICS, 0.1234), "n": MOST_CASES, "confusion_matrix": matrix}
        split = {"personal": metrics, "shared": metrics}
        report = {"round": 1, "cases": 1, "seconds": 0.1, "train_loss": 0.1, "validation": split, "test": split}
        assert len(msgpack.packb(report)) <= report_nbytes(form=MetricsForm(classes=classes))
