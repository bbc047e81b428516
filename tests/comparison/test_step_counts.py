"""Optimiser steps of a comparison's methods: as they are, made equal, and told where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.comparison.comparison_settings import Comparison, Run
from monai_fedlora.comparison.runner import Task
from monai_fedlora.comparison.step_counts import check_steps_not_tuned, step_counts, steps_beside
from monai_fedlora.errors import ConfigError

METHODS = ("dual_lora", "fedit", "local", "centralised", "ditto", "fedrep", "feddpa")
CASES = {"site-1": 4, "site-2": 5, "site-3": 4}
Counts = dict[str, dict[str, float]]


@pytest.fixture
def count(make_task: Callable[..., Task], tmp_path: Path) -> Callable[..., Counts]:
    """Steps of every method at the first site, or at the pool, whose batches have two cases."""

    def of(*methods: str, **changes: Any) -> Counts:
        comparison: Comparison = make_task(tmp_path, *methods, **changes).comparison
        found = {}
        for method in methods:
            plan = comparison.plan(Run(method=method, seed=0))
            cases = sum(CASES.values()) if comparison.is_pooled(method) else CASES["site-1"]
            found[method] = step_counts(plan, comparison.facts[method], cases)
        return found

    return of


def parts(counts: Mapping[str, float]) -> tuple[float, float, float]:
    return counts["steps"], counts["shared"], counts["private"]


@pytest.mark.slow
def test_phases_divide_a_round_and_a_pool_takes_the_steps_of_all_sites(count: Callable[..., Counts]) -> None:
    found = count(*METHODS)
    assert parts(found["dual_lora"]) == (2, 2, 2)
    assert parts(found["fedit"]) == (2, 2, 0)
    assert parts(found["local"]) == (2, 0, 2)
    assert parts(found["centralised"])[0] == 7
    assert {parts(found[method]) for method in ("ditto", "fedrep", "feddpa")} == {(2, 1, 1)}
    assert {each["cases"] for each in found.values()} == {2}


@pytest.mark.slow
def test_with_equal_steps_every_part_of_every_method_takes_as_many(count: Callable[..., Counts]) -> None:
    found = count(*METHODS, equal_steps=True)
    assert {max(each["shared"], each["private"]) for each in found.values()} == {2, 3}
    assert (found["centralised"]["steps"], found["centralised"]["cases"]) == (3, 6)
    for method in METHODS:
        moved = {steps for steps in parts(found[method])[1:] if steps}
        assert moved == ({3} if method == "centralised" else {2}), method
    assert [found[method]["steps"] for method in ("dual_lora", "ditto", "fedrep", "feddpa")] == [2, 4, 4, 4]


@pytest.mark.slow
def test_phases_that_take_turns_have_half_a_step_in_a_round(count: Callable[..., Counts]) -> None:
    """One batch holds all four cases."""
    methods = {"ditto": {"batch_size": 4}, "fedit": {"batch_size": 4}}
    found = count("ditto", "fedit", methods=methods, rounds=2)
    assert (parts(found["ditto"]), parts(found["fedit"])) == ((1, 0.5, 0.5), (1, 1, 0))
    equal = count("ditto", "fedit", methods=methods, rounds=2, equal_steps=True)
    assert (parts(equal["ditto"]), parts(equal["fedit"])) == ((2, 1, 1), (1, 1, 0))


def test_equal_steps_change_no_plan_of_a_method_without_phases(make_task: Callable[..., Task], tmp_path: Path) -> None:
    plans = {}
    for equal in (False, True):
        comparison = make_task(tmp_path, "fedit", "ditto", equal_steps=equal).comparison
        plans[equal] = [comparison.plan(Run(method=method, seed=0)) for method in ("fedit", "ditto")]
    assert plans[True][0] == plans[False][0]
    assert (plans[False][1].local_epochs, plans[True][1].local_epochs) == (1, 2)


def test_warming_up_takes_as_many_rounds_as_before(make_task: Callable[..., Task], tmp_path: Path) -> None:
    methods = {"ditto": {"warmup_epochs": 2}, "fedit": {}}
    plan = make_task(tmp_path, methods=methods, equal_steps=True).comparison.plan(Run(method="ditto", seed=0))
    assert plan.training["warmup_epochs"] == 4


def test_further_training_after_the_last_round_is_told() -> None:
    one = {"steps": 2.0, "shared": 2.0, "private": 0.0, "cases": 2.0, "after": 0.0}
    assert steps_beside({**one, "after": 6.0}, one) == "6 more after the last round, where others take 0"
    assert steps_beside({**one, "private": 2.0}, one) is None
    said = steps_beside({**one, "shared": 1.0, "after": 6.0}, one)
    assert said == "1 of its shared part, where others take 2; 6 more after the last round, where others take 0"
    assert steps_beside({**one, "cases": 6.0}, one) == "6 cases in a step, where others have 2"


@pytest.mark.parametrize(
    ("methods", "why"),
    [
        ({"fedit": {"batch_size": 2}, "ditto": {"batch_size": 4}}, "same batch_size, and it is 2 for fedit, 4 for"),
        ({"fedit": {}, "ditto": {"personal_share": 0.25}}, r"phases have shares of 0\.75 and 0\.25"),
    ],
)
def test_steps_that_cannot_be_made_equal_are_refused(
    make_task: Callable[..., Task], tmp_path: Path, methods: dict[str, Any], why: str
) -> None:
    make_task(tmp_path, methods=methods)
    with pytest.raises(ConfigError, match=why):
        make_task(tmp_path, methods=methods, equal_steps=True)


def test_steps_are_not_tuned_and_made_equal() -> None:
    check_steps_not_tuned(["batch_size"], equal_steps=False)
    check_steps_not_tuned(["learning_rate"], equal_steps=True)
    with pytest.raises(ConfigError, match="batch_size"):
        check_steps_not_tuned(["learning_rate", "batch_size"], equal_steps=True)


@pytest.mark.slow
def test_methods_whose_steps_differ_are_told(count: Callable[..., Counts]) -> None:
    found = count(*METHODS)
    said = {method: steps_beside(found[method], found["dual_lora"]) for method in METHODS}
    assert [said[method] for method in ("dual_lora", "fedit", "local")] == [None] * 3
    assert said["ditto"] == "1 of its shared part and 1 of its private part, where others take 2"
    assert said["centralised"] is not None and "where others take 2" in said["centralised"]
    equal = count(*METHODS, equal_steps=True)
    assert {
        m: steps_beside(equal[m], equal["dual_lora"]) for m in ("ditto", "fedrep", "feddpa", "local")
    } == dict.fromkeys(("ditto", "fedrep", "feddpa", "local"))
