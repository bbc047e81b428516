"""Outlines of skin lesions through the configs of the bundle for photographs, and through a federation in Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import monai_fedlora as fl
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.files import read_json
from monai_fedlora.networks.unetr import ViTUNETR
from tests.bundles.shipped import PHOTOGRAPHS

FEW = PhotoPhantomSettings(training=16, validation=4, test=4, size=48, classes=("NV", "MEL"), task="segmentation")


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datalists of two sites with masks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {site: site_data(site, phantom="dermoscopy", settings=FEW) for site in ("site-1", "site-3")}


@pytest.mark.slow
def test_a_site_learns_outlines_and_is_evaluated_by_dice(
    lesions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"dataset_dir": str(lesions["site-1"]), "overrides": ["segmentation"], "backbone": "demo"}
    few = {"epochs": 8, "batch_size": 4, "learning_rate": 0.003, "warmup_epochs": 1}

    trained = PHOTOGRAPHS.run("train", output_dir=str(tmp_path / "run"), **settings, **few)
    PHOTOGRAPHS.run("evaluate", run_dir=str(tmp_path / "run"), **settings)

    assert isinstance(trained.network_def, ViTUNETR)
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["n"] == len(read_json(lesions["site-1"])["test"]) and metrics["dice_lesion"] > 0.4


@pytest.mark.slow
def test_a_federation_in_python_takes_the_task_of_its_sites(lesions: dict[str, Path]) -> None:
    run = fl.federate(
        "vit_demo",
        fl.method("fedavg"),
        {site: path.parent for site, path in lesions.items()},
        rounds=1,
        batch_size=8,
    )
    rows = run.table().rows
    assert {row[0] for row in rows} == set(lesions) and run.table().head[-1] == "mean Dice"
