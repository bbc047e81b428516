"""Real patients as a site of segmentation."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import pytest

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.files import read_json
from monai_fedlora.measures.given_numbers import REASON
from tests.bundles.shipped import HEART_MASKS

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
FEW = 10


def test_patients_of_acdc_train_an_epoch_and_are_measured_on_their_own_grids(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    patients = sorted((real_data / "acdc" / "database").glob("*/patient*"))
    for patient in patients[:: len(patients) // FEW][:FEW]:
        (tmp_path / "database" / patient.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "database" / patient.parent.name / patient.name).symlink_to(patient)
    fl.prepare("acdc", source=tmp_path / "database", output=tmp_path, site="dijon", task="segmentation")
    site = tmp_path / "dijon" / "datalist.json"
    settings = {"dataset_dir": str(site), "backbone": "demo"}
    HEART_MASKS.run("train", epochs=1, augmented_views=1, **settings)
    folder = tmp_path / "runs" / HEART_MASKS.name / "site-1"
    settings["checkpoint"] = str(folder / "last.safetensors")
    HEART_MASKS.run("evaluate", **settings)
    HEART_MASKS.run("inference", **settings)
    metrics = read_json(folder / "metrics.json")
    cases = load_datalist(site).items("test")
    rows = list(csv.DictReader((folder / "volumes.csv").open()))
    hearts = list(csv.DictReader((folder / "hearts.csv").open()))
    for case, row, heart in zip(cases, rows, hearts, strict=True):
        assert row["study"] == heart["study"] == str(case["subject"])
        assert float(heart["lv_edv_ml_truth"]) > 30 and heart[REASON] == row[REASON]
        assert bool(row["lv_edv_ml"]) != bool(row[REASON])
        for phase in ("ed", "es"):
            mask = nibabel.load(folder / f"{case['subject']}_{phase}_mask.nii.gz")
            assert mask.shape == nibabel.load(case[f"{phase}_mask"]).shape
    print({name: metrics[name] for name in metrics if name.startswith("native_dice_")})
    assert metrics["native_dice_LV_ED"] > 0.6  # a few patients, once, after phantoms
