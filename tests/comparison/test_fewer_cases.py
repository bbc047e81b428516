"""A site has fewer of its patients: whole ones, the classes in proportion, smaller sets within larger ones."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.fewer_cases import check_curve, fewer_cases, patient_of
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.errors import ConfigError
from monai_fedlora.tasks.classification import CLASSIFICATION

MEASURES = Measures.of(CLASSIFICATION, ("a", "b", "c"))


def datalist(labels: list[int]) -> Datalist:
    cases = tuple(Case(subject=f"s{i}", label=label, group="g", image=f"{i}.png") for i, label in enumerate(labels))
    return Datalist(
        site="new",
        dataset="d",
        task="multiclass",
        classes=("a", "b", "c"),
        image_root=Path("/"),
        seed=0,
        training=cases,
        test=cases[:1],
    )


@pytest.mark.slow
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 3))
def test_fewer_cases_keep_the_classes_shares_and_are_nested(labels: list[int], seed: int) -> None:
    whole = datalist(labels)
    total = Counter(labels)
    before: set[str] = set()
    for n in range(1, len(labels) + 1):
        part = fewer_cases(whole, n, seed=seed)
        subjects = {case.subject for case in part.training}
        assert len(subjects) == len(part.training) == n
        assert before <= subjects
        assert part.test == whole.test
        for label, count in Counter(case.label for case in part.training).items():
            assert abs(count - n * total[label] / len(labels)) < 2.5
        before = subjects
    assert before == {case.subject for case in whole.training}


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_class_is_not_missing_where_there_is_room_for_all(seed: int) -> None:
    whole = datalist([0] * 30 + [1] * 3 + [2])
    for n in range(3, 10):
        assert {case.label for case in fewer_cases(whole, n, seed=seed).training} == {0, 1, 2}


def test_the_chosen_cases_depend_on_the_seed_and_not_on_the_order() -> None:
    whole = datalist([0, 1] * 20)
    chosen = [{case.subject for case in fewer_cases(whole, 6, seed=seed).training} for seed in range(5)]
    assert len({frozenset(each) for each in chosen}) > 1
    turned = dataclasses.replace(whole, training=whole.training[::-1])
    assert {case.subject for case in fewer_cases(turned, 6, seed=0).training} == chosen[0]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.integers(0, 3))
def test_a_patient_brings_all_photographs_or_none(photographs: list[int], seed: int) -> None:
    whole = datalist([0] * sum(photographs))
    units = [f"u{n}" for n, count in enumerate(photographs) for _ in range(count)]
    cases = tuple(dataclasses.replace(case, unit=unit) for case, unit in zip(whole.training, units, strict=True))
    whole = dataclasses.replace(whole, training=cases)
    for n in range(1, len(photographs)):
        part = fewer_cases(whole, n, seed=seed)
        found = Counter(map(patient_of, part.training))
        assert len(found) == n
        assert all(photographs[int(unit[1:])] == count for unit, count in found.items())


def test_curves_that_compare_nothing_are_refused_with_the_reason() -> None:
    sites = {"north": datalist([0, 1, 2] * 4)}
    check_curve((3, 11), sites, methods=("fedit", "local"), alone="local", measures=MEASURES)
    for cases, methods, said in (
        ((3,), ("fedit", "ditto"), "--methods needs local"),
        ((3,), ("local",), "local and another method"),
        ((3, 12), ("fedit", "local"), r"--cases 3,12: new trains on 12 patients.*below 12.*--cases-at"),
        ((2, 6), ("fedit", "local"), "new has patients of 3 classes, so that 2 cannot be of all; begin with 3"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_curve(cases, sites, methods=methods, alone="local", measures=MEASURES)
