"""Settings are chosen on validation cases, with as many runs for every method, and never from a single value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.comparison import execute as module
from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.comparison.runner import Task, run_missing, stored_scores
from monai_fedlora.comparison.tuning import check_grids, settings_of, tune, tuned
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.files import read_json

MakeTask = Callable[..., Task]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The plans of the runs that were done. The larger the learning rate, the better, and a shared head is better."""
    found: list[Any] = []

    def execute(comparison: Any, run: Run, **_: Any) -> tuple[dict[str, Any], list[Any]]:
        plan = comparison.plan(run)
        found.append(plan)
        if plan.training["learning_rate"] == 666:
            raise FedLoraError("diverged")
        value = plan.training["learning_rate"] + 0.1 * (plan.method_args.get("head") != "private") + 0.01 * plan.seed
        result = {"identity": comparison.identity(run), "common": comparison.common(), "metrics": []}
        return {**result, "validation": {"site-1": value, "site-2": None, "site-3": value}}, []

    monkeypatch.setattr(module, "execute", execute)
    return found


@pytest.mark.slow
def test_every_method_has_the_same_number_of_runs_and_gets_its_best(
    make_task: MakeTask, tmp_path: Path, plans: list[Any]
) -> None:
    """fedper has no shared head, and repeats its rates with a second seed."""
    task = make_task(tmp_path, "dual_lora", "fedper", seeds=(3, 4))
    found = tune(task, {"learning_rate": [0.1, 0.3, 0.2], "head": None})
    assert Counter(plan.method for plan in plans) == {"dual_lora": 6, "fedper": 6}
    assert found.budget == 6
    assert {plan.seed for plan in plans if plan.method == "dual_lora"} == {3}
    assert Counter(plan.seed for plan in plans if plan.method == "fedper") == {3: 3, 4: 3}
    assert found.chosen == {"dual_lora": {"learning_rate": 0.3, "head": "shared"}, "fedper": {"learning_rate": 0.3}}
    best = next(each for each in found.tried if each.settings == found.chosen["fedper"])
    assert best.values == (pytest.approx(0.3 + 0.1 + 0.03), pytest.approx(0.3 + 0.1 + 0.04))
    after = tuned(task.comparison, found)
    assert after.methods["dual_lora"] == {**task.comparison.methods["dual_lora"], **found.chosen["dual_lora"]}
    assert after.seeds == (3, 4)
    plans.clear()
    assert tune(task, {"learning_rate": [0.1, 0.3, 0.2], "head": None}) == found
    assert plans == []


def test_a_rate_without_values_is_tried_around_what_it_is(make_task: MakeTask, tmp_path: Path) -> None:
    methods = {"fedit": {"learning_rate": 0.002}, "dual_lora": {}}
    comparison = make_task(tmp_path, methods=methods).comparison
    assert [each["learning_rate"] for each in settings_of("fedit", {"learning_rate": None}, comparison)] == [
        0.0005,
        0.002,
        0.008,
    ]
    usual = settings_of("dual_lora", {"learning_rate": None}, comparison)
    assert usual[1]["learning_rate"] == 4 * usual[0]["learning_rate"] == usual[2]["learning_rate"] / 4


def test_errors_choose_the_smallest(make_task: MakeTask, tmp_path: Path, plans: list[Any]) -> None:
    task = make_task(tmp_path, "fedit", task="regression")
    assert tune(task, {"learning_rate": [0.3, 0.1]}).chosen == {"fedit": {"learning_rate": 0.1}}


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        ({"learning_rate": [0.1]}, "one value"),
        ({"rank": []}, "one value"),
        ({"rank": [4, 4]}, "twice"),
        ({"rank": None}, "--tune rank=1:2"),
        ({"augment": None}, "--tune augment=1:2"),
        ({"rnk": [4, 8]}, "rank"),
        ({"learning_rate": [0.1, -1]}, "above 0"),
        ({"learning_rate": [0.1, 0.2, 0.3], "rank": [2, 4, 8]}, "9 settings"),
        ({"rank": [0, -4]}, "rank"),
    ],
)
def test_grids_that_choose_nothing_or_too_much_are_refused(
    make_task: MakeTask, tmp_path: Path, plans: list[Any], grids: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        tune(make_task(tmp_path, "dual_lora"), grids)
    assert plans == []


def test_a_method_without_a_choice_keeps_its_settings(make_task: MakeTask, tmp_path: Path, plans: list[Any]) -> None:
    task = make_task(tmp_path, methods={m: {"learning_rate": 0.1} for m in ("dual_lora", "fedper")})
    found = tune(task, {"head": None})
    assert found.chosen == {"dual_lora": {"head": "shared"}}
    assert tuned(task.comparison, found).methods["fedper"] == {"learning_rate": 0.1}
    with pytest.raises(ConfigError, match="no method has a choice"):
        tune(make_task(tmp_path / "other", "fedper"), {"head": ["shared", "private"]})


def test_settings_that_equal_steps_exclude_are_refused_before_the_first_run(
    make_task: MakeTask, tmp_path: Path, plans: list[Any]
) -> None:
    task = make_task(tmp_path, "fedit", "ditto", equal_steps=True)
    with pytest.raises(ConfigError, match=r"shares of 0\.75 and 0\.25"):
        tune(task, {"personal_share": [0.5, 0.25]})
    assert plans == []


def test_without_validation_cases_nothing_can_be_chosen(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(tmp_path, "fedit")
    bare = {site: replace(datalist, validation=()) for site, datalist in task.datalists.items()}
    with pytest.raises(ConfigError, match="no site has any"):
        tune(replace(task, datalists=bare), {"learning_rate": None})
    check_grids({"learning_rate": None}, ["fedit"])


def test_a_setting_that_fails_is_not_chosen_and_one_that_works_is_needed(
    make_task: MakeTask, tmp_path: Path, plans: list[Any]
) -> None:
    found = tune(make_task(tmp_path, "fedit"), {"learning_rate": [666, 0.1]})
    assert found.chosen == {"fedit": {"learning_rate": 0.1}}
    assert [failure.reason for failure in found.failures] == ["diverged"]
    assert found.tried[0].mean is None
    broken = make_task(tmp_path / "broken", methods={"fedit": {"learning_rate": 666}})
    with pytest.raises(FedLoraError, match="fedit failed"):
        tune(broken, {"rank": [4, 8]})


@pytest.mark.slow
def test_runs_that_choose_have_the_first_split_and_keep_nothing_of_its_test_cases(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(tmp_path, "fedit", folds=2)
    trial = replace(task, comparison=replace(task.comparison, tuning=True))
    (run,) = trial.comparison.runs()
    assert (run.repeat, run.fold) == (0, 0)
    assert run_missing(trial) == []
    result = read_json(trial.path(run))
    assert result["metrics"] == []
    assert stored_scores(trial, [run]) == []
    assert result["validation"].keys() == set(task.datalists)
    assert all(0 <= value <= 1 for value in result["validation"].values())
