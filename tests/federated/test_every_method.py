"""Every method in real sites: a complete run, and one that other processes went on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.initial import build_shared, needs_backbone
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.site import Site
from monai_fedlora.files import load_tensors
from monai_fedlora.methods import get_method, method_names
from tests.federated.conftest import SITES, Prepared

SETTINGS: dict[str, dict[str, Any]] = {
    "flexlora": {"ranks": [2, 8]},
    "flora": {"ranks": [8, 4]},
    "pfedst": {"classifier": "linear", "schedule": "alternate"},
}


def plan_of(name: str, prepared: Prepared) -> Plan:
    sites = SITES[: get_method(name).most_sites or 2]
    training = {"batch_size": 2, "warmup_epochs": 0}
    return prepared.plan(method=name, method_args=SETTINGS.get(name, {}), sites=sites, training=training)


@pytest.mark.slow
@pytest.mark.parametrize("name", method_names())
def test_a_run_in_new_processes_after_each_round_gives_the_same(name: str, prepared: Prepared, tmp_path: Path) -> None:
    plan = plan_of(name, prepared)
    results = run_in_process(plan, folder=tmp_path / "whole", **prepared.places)
    assert results["status"] == "finished"
    assert results["refused"] == []
    for site in plan.sites:
        assert results["final"][site]["test"]["private_on"]["n"] > 0

    backbone = str(prepared.backbone) if needs_backbone(plan) else None
    manifest, shared = build_shared(plan, backbone=backbone)
    average = SharedAverage.of(plan, manifest)
    for number in range(plan.rounds):
        average.begin(number, shared)
        for site in plan.sites:
            fresh = Site(name=site, plan=plan, private_root=tmp_path / "parts", **prepared.places)
            update = fresh.train_round(number, shared)
            average.accept(site, update.payload, update.report)
        shared = average.aggregate()
    stored, _ = load_tensors(tmp_path / "whole" / "shared.safetensors")
    assert stored.keys() == shared.keys()
    assert all(torch.equal(stored[key], torch.from_numpy(value)) for key, value in shared.items())
    for site in plan.sites:
        finished = Site(name=site, plan=plan, private_root=tmp_path / "parts", **prepared.places).finish(shared)
        assert {**finished, "seconds": 0} == {**results["final"][site], "seconds": 0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ditto", "feddpa", "fedrep", "pfedst"])
def test_a_site_with_too_few_steps_for_the_phases_says_so(name: str, prepared: Prepared, tmp_path: Path) -> None:
    plan = dataclasses.replace(plan_of(name, prepared), training={"batch_size": 64, "warmup_epochs": 0})
    site = Site(name=plan.sites[0], plan=plan, private_root=tmp_path, **prepared.places)
    with pytest.raises(ConfigError, match="local_epochs"):
        site.train_round(0, build_shared(plan)[1])
