"""Tasks by name, and what a plan makes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from monai_fedlora.data.cases import NO_LABEL, Case, Datalist
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.tasks.known import TASKS, task_of

PLAN = {
    "experiment": "e",
    "bundle": "b",
    "method": "fedper",
    "sites": ("north",),
    "classes": ("LV",),
    "rounds": 1,
    "backbone_sha256": "0" * 64,
}


def listed(task: str) -> Datalist:
    case = Case(subject="p1", label=NO_LABEL, group="", image="p1.png")
    return Datalist(
        site="north", dataset="d", task=task, classes=("LV",), image_root=Path(), seed=0, training=(case, case)
    )


def test_datalists_of_every_task_find_it() -> None:
    assert [task_of(listed(word)).name for word in ("binary", "multiclass")] == ["classification"] * 2
    assert task_of(listed("segmentation")) is TASKS["segmentation"]
    assert listed("segmentation").counts("training") == (2,)
    with pytest.raises(DataError, match="detection"):
        task_of(listed("detection"))


@pytest.mark.parametrize("name", ["segmentation", "regression"])
def test_a_plan_carries_its_task_and_another_task_is_another_experiment(name: str) -> None:
    plan = Plan(**PLAN, task=name)
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.outputs == len(plan.classes) + (name == "segmentation")
    classes = Plan(**{**PLAN, "classes": ("a", "b")})
    assert "task" not in classes.to_json()
    assert dataclasses.replace(classes, task=name).fingerprint != classes.fingerprint


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="segmentation"):
        Plan(**PLAN, task="segmentatoin")
    with pytest.raises(ConfigError, match="1 classes; classification needs at least 2"):
        Plan(**PLAN)
