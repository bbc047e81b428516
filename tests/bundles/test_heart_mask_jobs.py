"""A job of segmentation of hearts: stopped after its first round and gone on with, in both ways of simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.federated.site_state import FINAL_NAME
from monai_fedlora.files import write_json
from tests.bundles.runs import Stopped, same_tensors, stop_in_the_second_round
from tests.bundles.shipped import HEART_MASKS

pytestmark = pytest.mark.slow
SITES = ["site-1", "site-2"]
OPTIONS: dict[str, Any] = {
    "sites": SITES,
    "bundle": HEART_MASKS.name,
    "task": "segmentation",
    "classes": ["LV", "MYO", "RV"],
    "settings": {"batch_size": 2, "augment": True, "warmup_epochs": 1},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    few = PhantomSettings(training=4, validation=2, test=2, task="segmentation")
    for name in SITES:
        listed = load_datalist(site_data(name, phantom="cine_masks", settings=few))
        write_json(root / name / "datalist.json", listed.to_json())
    return root


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> fl.WrittenJob:
    return fl.write_job("dual_lora", output=tmp_path_factory.mktemp("jobs") / "masks", rounds=2, **OPTIONS)


@pytest.fixture(scope="module")
def whole(job: fl.WrittenJob, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> fl.Simulated:
    """The run that nobody stops, one site after the other."""
    workspace = tmp_path_factory.mktemp("runs") / "whole"
    return fl.simulate(job.folder, workspace=workspace, data=str(prepared), in_process=True)


@pytest.mark.parametrize("in_process", [True, False], ids=["in_process", "simulator"])
def test_a_stopped_job_goes_on_to_the_bits_of_one_that_nobody_stopped(
    in_process: bool, whole: fl.Simulated, job: fl.WrittenJob, prepared: Path, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"workspace": tmp_path / "run", "data": str(prepared), "in_process": in_process}
    with pytest.raises(Stopped):
        fl.simulate(job.folder, on_progress=stop_in_the_second_round, **where)
    rest = fl.write_job(
        "dual_lora",
        output=tmp_path / "rest",
        rounds=1,
        start_from=tmp_path / "run" / "shared.safetensors",
        resume=True,
        experiment=job.plan.experiment,
        **OPTIONS,
    )
    assert rest.plan.start_round == 1
    found = fl.simulate(rest.folder, **where)
    assert (found.lacks, found.refused) == ([], [])
    assert same_tensors(found.workspace / "shared.safetensors", whole.workspace / "shared.safetensors")
    models = {path.parent.name: path for path in whole.workspace.rglob(FINAL_NAME)}
    again = {path.parent.name: path for path in found.workspace.rglob(FINAL_NAME)}
    assert models.keys() == again.keys() == set(SITES)
    assert all(same_tensors(again[site], models[site]) for site in SITES)
    assert {site: each["test"] for site, each in found.results["final"].items()} == {
        site: each["test"] for site, each in whole.results["final"].items()
    }
