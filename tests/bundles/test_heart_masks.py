"""Segmentation of hearts through the shared parts of the bundles' configs."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.files import read_json
from monai_fedlora.methods.base import get_method
from monai_fedlora.networks.convunetr import ConvUNetR
from tests.bundles.shipped import HEART_MASKS


@pytest.fixture(scope="module")
def masked_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a few phantoms with masks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return site_data(
            "site-1",
            phantom="cine_masks",
            settings=PhantomSettings(training=5, validation=4, test=5, task="segmentation"),
        )


@pytest.mark.parametrize("head", ["shared", "private"])
def test_a_datalist_with_masks_gets_the_decoder_and_adapters_in_the_encoder(masked_site: Path, head: str) -> None:
    workflow = HEART_MASKS.workflow("train", dataset_dir=str(masked_site), method_args={"head": head})
    workflow.initialize()
    network = workflow.network_def
    assert isinstance(network, ConvUNetR)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trained if "lora_" in name}
    assert {name.split(".")[0] for name in adapters} == {"encoder"}
    assert {part for name in adapters for part in (SHARED, PRIVATE) if f".{part}." in name} == {SHARED, PRIVATE}
    decoder = {name for name, _ in network.named_parameters() if name.startswith(network.head_prefixes)}
    assert trained == adapters | decoder
    method = get_method("dual_lora", {"head": head})
    travels = {name for name in trained if method.is_shared(name, network)}
    assert travels == {name for name in adapters if f".{SHARED}." in name} | (decoder if head == "shared" else set())
    with torch.no_grad():
        assert network(torch.zeros(1, 2, 48, 48, 8)).shape == (1, 2, 4, 48, 48, 8)


@pytest.mark.slow
def test_evaluation_and_inference_measure_and_write_masks_on_the_files_own_grid(
    masked_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    HEART_MASKS.run("train", dataset_dir=str(masked_site), epochs=1)
    HEART_MASKS.run("evaluate", dataset_dir=str(masked_site))
    HEART_MASKS.run("inference", dataset_dir=str(masked_site))
    folder = tmp_path / "runs" / HEART_MASKS.name / "site-1"
    metrics = read_json(folder / "metrics.json")
    cases = load_datalist(masked_site).items("test")
    rows = list(csv.DictReader((folder / "volumes.csv").open()))
    hearts = list(csv.DictReader((folder / "hearts.csv").open()))
    dice: dict[str, list[float]] = {}
    errors = []
    for case, volumes, heart in zip(cases, rows, hearts, strict=True):
        for phase in ("ed", "es"):
            mask = nibabel.load(folder / f"{case['subject']}_{phase}_mask.nii.gz")
            drawn = nibabel.load(case[f"{phase}_mask"])
            assert mask.shape == drawn.shape
            assert np.allclose(mask.affine, drawn.affine, atol=1e-4)
            for number, (name, value) in enumerate((("LV", 3), ("MYO", 2), ("RV", 1)), 1):  # ACDC's values
                ours, theirs = np.asarray(mask.dataobj) == number, np.asarray(drawn.dataobj) == value
                both = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
                dice.setdefault(f"native_dice_{name}_{phase.upper()}", []).append(both)
                if (phase, name) == ("ed", "LV"):
                    voxel = abs(np.linalg.det(drawn.affine[:3, :3])) / 1000
                    told = volumes["lv_edv_ml"]
                    assert bool(told) != bool(volumes["no_volume_because"])
                    assert not told or float(told) == pytest.approx(ours.sum() * voxel, abs=0.006)
                    errors.append((ours.sum() - theirs.sum()) * voxel)
        assert heart["no_volume_because"] == volumes["no_volume_because"]
        assert float(heart["lv_edv_ml_error"]) == pytest.approx(errors[-1], rel=1e-4)
    assert {name: metrics[name] for name in dice} == pytest.approx({k: np.mean(v) for k, v in dice.items()}, abs=1e-5)
    assert metrics["lv_edv_bias"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert metrics["lv_edv_error"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-4)
