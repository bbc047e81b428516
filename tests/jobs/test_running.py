"""The job folders of the repository run as they are."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import read_json, write_json
from tests.helpers import for_methods

JOBS = Path(__file__).resolve().parents[2] / "nvflare_jobs"
PLANS = {path.parents[2].name: Plan.load(path) for path in sorted(JOBS.glob("*/app/config/plan.json"))}
PHOTOGRAPHS = [name for name, plan in PLANS.items() if plan.bundle.startswith("image_2d_")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few photographs of each site, so that a run takes seconds."""
    root, few = tmp_path_factory.mktemp("prepared"), PhotoPhantomSettings(training=12, validation=4, test=4, size=48)
    for site in PLANS["fedopal"].sites:
        listed = load_datalist(site_data(site, phantom="dermoscopy", settings=few))
        write_json(root / site / "datalist.json", listed.to_json())
    return root


@pytest.mark.parametrize(
    "name", for_methods(PHOTOGRAPHS, always=("centralised", "clip_zero_shot", "fedopal", "flora", "pfedst"))
)
def test_a_job_comes_to_its_end(name: str, prepared: Path, tmp_path: Path) -> None:
    plan = dataclasses.replace(PLANS[name], rounds=1, local_epochs=1)
    results = run_in_process(plan, folder=tmp_path, data_root=str(prepared))
    assert (results["status"], results["refused"]) == ("finished", [])
    assert all(results["final"][site]["test"]["personal"]["n"] > 0 for site in plan.sites)


@pytest.mark.parametrize("name", ["fedopal", "pfedst", pytest.param("clip_zero_shot", marks=pytest.mark.long)])
def test_nvflares_own_simulator_runs_the_job(name: str, prepared: Path, tmp_path: Path) -> None:
    nvflare = Path(sys.executable).with_name("nvflare")
    done = subprocess.run(
        [nvflare, "simulator", JOBS / name, "-w", tmp_path, "-t", str(len(PLANS[name].sites))],
        env={**os.environ, "MONAI_FEDLORA_DATA": str(prepared), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_json(tmp_path / "server" / "simulate_job" / "results.json")
    assert (results["status"], results["refused"]) == ("finished", [])
    assert results["final"].keys() == set(PLANS[name].sites)
