"""A catalogued backbone on prepared folders: the run is that of the commands, and its job can go to hospitals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import monai_fedlora as fl
from monai_fedlora.api.federation import IMAGE_BUNDLE
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import load_tensors

SITES = ("site-1", "site-2")
SETTINGS: dict[str, Any] = {"rounds": 1, "batch_size": 4, "warmup_epochs": 0, "augment": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared folders of two sites with a few synthetic photographs."""
    root = tmp_path_factory.mktemp("photographs")
    few = PhotoPhantomSettings(training=6, validation=4, test=4, size=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(root / "cache"))
        for site in SITES:
            shutil.copytree(site_data(site, phantom="dermoscopy", settings=few).parent, root / "data" / site)
    return root / "data"


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> fl.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        choice = fl.method("dual_lora", rank=2, blocks=1)
        sites = {site: data / site for site in SITES}
        return fl.federate("vit_demo", choice, sites, **SETTINGS, folder=tmp_path_factory.mktemp("run") / "W")


@pytest.mark.slow
def test_the_run_is_the_one_of_the_commands_to_the_bit(run: fl.Run, data: Path, tmp_path: Path) -> None:
    job = run.plan.to_job(tmp_path / "job")
    assert Plan.load(job / "app" / "config" / "plan.json").to_json() == run.plan.to_json()
    assert run.plan.bundle == IMAGE_BUNDLE
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path / "cache"))
        patch.setenv("MONAI_FEDLORA_POLICY", str(tmp_path / "policy.json"))
        (tmp_path / "policy.json").write_text('{"least_cases": 1, "least_steps": 1}', encoding="utf-8")
        run_in_process(job, folder=tmp_path / "W", data_root=str(data))
    assert run.folder is not None
    for name in ("shared.safetensors", "private/run/site-1/final.safetensors"):
        one, other = (load_tensors(folder / name)[0] for folder in (run.folder, tmp_path / "W"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_its_models_are_plain_backbones_and_its_bundle_reads_photographs(run: fl.Run, tmp_path: Path) -> None:
    model = run.personal("site-1")
    assert not [key for key in model.state_dict() if "lora_" in key]
    bundle = run.export("site-1", tmp_path / "B", statistics=False, program=False)
    assert (bundle.folder / "models" / "model.ts").is_file()
    assert {row["subject"] for row in run.cases if row["site"] == "site-2"}


@pytest.mark.parametrize(
    ("choice", "changes", "said"),
    [
        (fl.method("dual_lora", head="head"), {}, "knows its head"),
        (fl.method("fedit"), {"classes": ["a", "b"]}, "all sites need the same"),
        (fl.method("fedit"), {"network": "vit_base_16"}, "no demo weights"),
    ],
)
def test_what_a_catalogued_network_cannot_do_is_said(
    choice: fl.MethodChoice, changes: dict[str, Any], said: str, data: Path
) -> None:
    network = changes.pop("network", "vit_demo")
    with pytest.raises(ConfigError, match=said):
        fl.federate(network, choice, {site: data / site for site in SITES}, **changes)
