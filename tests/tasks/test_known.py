"""Tasks by name, and what a plan makes of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from statistics import fmean

import pytest
import torch
from monai.bundle import ConfigParser

import monai_fedlora as fl
from monai_fedlora.data.cases import NO_LABEL, Case, Datalist
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.federated.approval import Job, _blocked_by_gate, write_gate
from monai_fedlora.federated.consent import job_lines
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import Plan
from monai_fedlora.tasks.known import TASKS, task_of
from monai_fedlora.tasks.task import SCORE

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


@pytest.mark.parametrize(("name", "number"), [("segmentation", "dice_LV_ED"), ("regression", "bias_LV")])
def test_a_site_is_told_which_numbers_of_a_task_would_leave_it(name: str, number: str, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    manifest = fl.attach(network, fl.method("fedprox", targets="1", rank=1)).manifest
    plan = Plan(**{**PLAN, "bundle": "image_2d_fedopal_classification"}, task=name)
    config = tmp_path / "app" / "config"
    config.mkdir(parents=True)
    for end in ("client", "server"):
        (config / f"config_fed_{end}.json").write_text("{}")
    said = "\n".join(text for _, text in job_lines(Job(folder=tmp_path, plan=plan, manifest=manifest)))
    assert number in said and f"task={name}" in said and "confusion_matrix" not in said
    classes = Plan(**{**PLAN, "bundle": "image_2d_fedopal_classification", "classes": ("a", "b")})
    said = "\n".join(text for _, text in job_lines(Job(folder=tmp_path, plan=classes, manifest=manifest)))
    assert "ece, n, confusion_matrix" in said and "dice" not in said


def test_a_gate_that_was_written_for_another_task_would_stop_the_job(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    manifest = fl.attach(network, fl.method("fedprox", targets="1", rank=1)).manifest
    job = Job(folder=tmp_path, plan=Plan(**PLAN, task="segmentation"), manifest=manifest)
    assert _blocked_by_gate(job, tmp_path) is None
    write_gate(job, tmp_path)
    assert _blocked_by_gate(job, tmp_path) is None
    for plan in (Plan(**PLAN, task="regression"), Plan(**{**PLAN, "classes": ("a", "b")})):
        assert "segmentation of LV" in str(_blocked_by_gate(dataclasses.replace(job, plan=plan), tmp_path))


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="segmentation"):
        Plan(**PLAN, task="segmentatoin")
    with pytest.raises(ConfigError, match="1 classes; classification needs at least 2"):
        Plan(**PLAN)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_scores_of_cases_make_up_the_key(name: str) -> None:
    task, names, draw = TASKS[name], ("LV", "MYO", "RV"), torch.Generator().manual_seed(1)

    def output(number: int) -> dict[str, torch.Tensor]:
        outputs = task.outputs(len(names))
        if name == "segmentation":
            labels = torch.randint(0, outputs, (2, 4, 4, 2), generator=draw)
            return {"pred": torch.randn(2, outputs, 4, 4, 2, generator=draw), "label": (1 << labels).to(torch.uint8)}
        pred = torch.randn(outputs, generator=draw)
        if name == "regression":
            values = torch.randn(outputs, generator=draw)
            return {"pred": pred, "label": values.masked_fill(torch.arange(outputs) == number % 4, torch.nan)}
        return {"pred": pred.softmax(dim=0), "label": torch.tensor(number % 2)}  # the third class has no case

    outputs = [output(number) for number in range(9)]
    metrics = task.metrics(task.key, names)
    metrics.update(metrics._output_transform(outputs))
    assert task.scores is not None
    scores = [task.scores(each, names) for each in outputs]
    assert all(next(iter(each)) == SCORE and list(each) == list(scores[0]) for each in scores)
    classes = [int(each["label"]) if task.by_class else 0 for each in outputs]
    means = [fmean(s[SCORE] or 0.0 for s, c in zip(scores, classes, strict=True) if c == one) for one in set(classes)]
    assert fmean(means) == pytest.approx(metrics.compute()[task.key])


def test_a_plan_carries_the_scale_of_its_values_and_another_scale_is_another_experiment() -> None:
    plan = Plan(**PLAN, task="regression", scale=((55.0, 15.0),))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    bare = Plan(**PLAN, task="regression")
    assert "scale" not in bare.to_json() and bare.fingerprint != plan.fingerprint
    for wrong in (((55.0, 15.0), (1.0, 1.0)), ((55.0, 0.0),), ((55.0,),), ((float("nan"), 1.0),), (("a", 1),)):
        with pytest.raises(ConfigError, match="scale"):
            Plan(**PLAN, task="regression", scale=wrong)
    with pytest.raises(ConfigError, match="has no values"):
        Plan(**PLAN, task="segmentation", scale=((55.0, 15.0),))


def test_a_site_on_another_scale_than_the_plan_is_refused(tmp_path: Path) -> None:
    case = Case(subject="p1", label=NO_LABEL, group="g", image="p1.png", values=(58.0,))
    site = dataclasses.replace(listed("regression"), training=(case,), scale=((50.0, 15.0),), image_root=tmp_path)
    (tmp_path / "p1.png").touch()
    (tmp_path / "datalist.json").write_text(json.dumps(site.to_json()))
    plan = Plan(**PLAN, task="regression", scale=((55.0, 15.0),))
    source = Installed(datalists={"north": tmp_path / "datalist.json"})
    with pytest.raises(ConfigError, match=r"scale \[\[50.0, 15.0\]\], the plan \[\[55.0, 15.0\]\]"):
        source.furnish(ConfigParser({"phantom": "cine"}), plan=plan, site="north")
    assert task_of(site).postprocessing() is not None
