"""Every method in real sites: a complete run, and one that other processes went on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import build_shared, needs_backbone
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import load_tensors
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.prompts import bundle_prompts
from tests.federated.conftest import SITES, TEXTS, Prepared
from tests.helpers import for_methods
from tests.methods.federation import NEED_TEXTS

SETTINGS: dict[str, dict[str, Any]] = {
    "flexlora": {"ranks": [2, 8]},
    "flora": {"ranks": [8, 4]},
    "pfedst": {"classifier": "linear", "schedule": "alternate"},
}
TRAINING = {"batch_size": 2, "warmup_epochs": 0}


def plan_of(name: str, prepared: Prepared) -> Plan:
    sites = SITES[: get_method(name).most_sites or 2]
    return prepared.plan(method=name, method_args=SETTINGS.get(name, {}), sites=sites, training=TRAINING)


def plan_with_texts(name: str, photographs: Prepared) -> Plan:
    return photographs.plan(
        method=name,
        bundle=TEXTS,
        size="clip_demo",
        classes=("NV", "MEL", "BKL", "VASC"),
        prompts=bundle_prompts(TEXTS),
        training=TRAINING | {"augment": False},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", for_methods(sorted({*method_names()} - {*NEED_TEXTS}), always=("ditto", "dual_lora", "fedrep", "flora"))
)
def test_a_run_in_new_processes_after_each_round_gives_the_same(name: str, prepared: Prepared, tmp_path: Path) -> None:
    check_run(plan_of(name, prepared), prepared, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NEED_TEXTS, "pfedst"])
def test_a_run_with_texts_in_new_processes_gives_the_same(name: str, photographs: Prepared, tmp_path: Path) -> None:
    check_run(plan_with_texts(name, photographs), photographs, tmp_path)


@pytest.mark.slow
def test_a_federation_that_trains_nothing_evaluates(photographs: Prepared, tmp_path: Path) -> None:
    plan = dataclasses.replace(plan_with_texts("clip_zero_shot", photographs), rounds=1)
    results = run_in_process(plan, folder=tmp_path, **photographs.places)
    assert (results["status"], results["refused"], results["payload_bytes"]) == ("finished", [], 0)
    assert load_tensors(tmp_path / "shared.safetensors")[0] == {}
    for site in plan.sites:
        before, after = results["rounds"][0]["sites"][site], results["final"][site]
        assert before["validation"] == after["validation"]
        assert after["test"]["personal"] == after["test"]["shared"]
        assert before["train_loss"] > 0
        private = tmp_path / "private" / plan.experiment / site / "final.safetensors"
        assert load_tensors(private)[0] == {}


def check_run(plan: Plan, prepared: Prepared, tmp_path: Path) -> None:
    """Compare a run with one of which every task has a process of its own."""
    results = run_in_process(plan, folder=tmp_path / "whole", **prepared.places)
    assert results["status"] == "finished"
    assert results["refused"] == []
    for site in plan.sites:
        assert results["final"][site]["test"]["personal"]["n"] > 0

    backbone = str(prepared.backbone) if needs_backbone(plan) else None
    manifest, shared = build_shared(plan, backbone=backbone)
    average = SharedAverage.of(plan, manifest)
    for number in range(plan.rounds):
        average.begin(number, shared)
        for site in plan.sites:
            fresh = Site(name=site, plan=plan, private_root=tmp_path / "parts", source=prepared.source)
            update = fresh.train_round(number, shared)
            average.accept(site, update)
        shared = average.aggregate()
    stored, _ = load_tensors(tmp_path / "whole" / "shared.safetensors")
    assert stored.keys() == shared.keys()
    assert all(torch.equal(stored[key], torch.from_numpy(value)) for key, value in shared.items())
    for site in plan.sites:
        finished = Site(name=site, plan=plan, private_root=tmp_path / "parts", source=prepared.source).finish(shared)
        assert {**finished.to_json(), "seconds": 0} == {**results["final"][site], "seconds": 0}
