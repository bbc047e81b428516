"""Bundles of regression models: numbers in their units, by every file of the model and by a run with MONAI alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import monai_fedlora as fl
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.network import ExportedNetwork
from monai_fedlora.exporting.reference import METHOD
from monai_fedlora.exporting.value_answer import Values
from monai_fedlora.transforms.localise import CinePreprocessor
from tests.tasks.small import Pixels, images_and_masks, targets

from .finished_runs import MICRO, Run, finished_run
from .running import infer, without_this_package
from .test_mask_answer import read_pair

VALUES, SCALE = ("lv_ef", "lv_edv"), ((55.0, 15.0), (150.0, 50.0))
COLUMNS = ("lv_ef_percent", "lv_edv_ml")


def found(error: float) -> dict[str, Any]:
    """Metrics of a site's test cases, as a run of regression records them."""
    key = "scaled_error"
    ends = {f"{key}_low": error - 1, f"{key}_high": error + 1}
    return {
        "n": 12,
        key: error,
        **ends,
        "mean_absolute_error_lv_ef": error,
        "bias_lv_ef": -0.5,
        "agreement_low_lv_ef": -9.0,
    }


def test_numbers_come_back_into_their_units() -> None:
    plain = torch.nn.Linear(3, 2)
    image = torch.rand(5, 3)
    with torch.no_grad():
        expected = plain(image) * torch.tensor([15.0, 50.0]) + torch.tensor([55.0, 150.0])
        assert torch.allclose(ExportedNetwork(plain, scale=SCALE)(image), expected)
        assert torch.equal(ExportedNetwork(plain, temperature=2.0)(image), plain(image) / 2.0)
    assert Values(names=VALUES, scale=SCALE).plain_logits.endswith(
        "lv_ef is 15 times the number plus 55, lv_edv is 50 times the number plus 150"
    )


@pytest.fixture(scope="module")
def value_run(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Run:
    views = {"personal": found(5.0), "shared": found(6.0)}
    folder = tmp_path_factory.mktemp("run") / "W"
    return finished_run(folder, backbone, task="regression", classes=VALUES, scale=SCALE, given_views=views)


@pytest.fixture(scope="module")
def value_exported(tmp_path_factory: pytest.TempPathFactory, value_run: Run) -> Exported:
    return export_bundle(**value_run.options(tmp_path_factory.mktemp("bundles") / "numbers", onnx=True))


def in_memory(network: torch.nn.Module, studies: Path, study: str) -> list[float]:
    """Values of a study whose orientation is known, step by step."""
    image, affine = read_pair(studies, study)
    prepared = CinePreprocessor(MICRO.image_size, MICRO.spacing)(image[None].float(), affine[None])
    with torch.no_grad():
        numbers = network(prepared)[0].tolist()
    return [number * spread + centre for number, (centre, spread) in zip(numbers, SCALE, strict=True)]


@pytest.mark.slow
def test_a_run_where_this_package_is_not_writes_the_values_of_the_network_in_memory(
    value_run: Run, value_exported: Exported, studies: Path, tmp_path: Path
) -> None:
    run = without_this_package(value_exported.usage, studies, tmp_path / "out", cwd=value_exported.folder.parent)
    assert run.returncode == 0, run.stderr
    with (tmp_path / "out" / "values.csv").open(newline="") as file:
        rows = {row["study"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"p1", "p.2 b", "a_3"}
    for study in ("p1", "p.2 b"):
        row = rows[study]
        assert tuple(row) == ("study", *COLUMNS, "error") and row["error"] == ""
        expected = in_memory(value_run.networks["site-1"], studies, study)
        assert [float(row[name]) for name in COLUMNS] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_study_without_a_partner_has_an_error_in_place_of_numbers(
    value_exported: Exported, studies: Path, tmp_path: Path
) -> None:
    (studies / "p1_es.nii.gz").unlink()
    with pytest.raises(RuntimeError) as error:
        infer(value_exported.folder, studies, tmp_path / "out")
    assert "1 of 3 studies could not be measured" in str(error.value.__cause__)


@pytest.mark.slow
def test_every_file_passes_the_check_and_no_place_of_the_patients_leaves(
    value_run: Run, value_exported: Exported
) -> None:
    metadata = value_exported.metadata
    assert set(metadata["model_files"]) == {f"models/model.{end}" for end in ("ts", "pt", "pt2", "onnx")}
    assert check_bundle(value_exported.folder, run=True).passed
    assert not metadata["out_of_distribution"]["available"]
    assert "a run of regression keeps no features" in metadata["out_of_distribution"]["reason"]
    script = torch.jit.load(value_exported.folder / "models" / "model.ts")
    pair = torch.rand(1, 2, 40, 40, 4)
    affine = torch.diag(torch.tensor([4.0, 4.0, 10.0, 1.0], dtype=torch.float64))[None]
    assert script(pair, affine).shape == (1, 2) and not hasattr(script, METHOD)


@pytest.mark.slow
def test_metadata_and_card_say_what_applies_to_numbers_and_nothing_else(value_exported: Exported) -> None:
    metadata = value_exported.metadata
    assert "calibration" not in metadata
    assert metadata["task"] == "Regression of short-axis cine cardiac MRI to lv_ef in % / lv_edv in mL"
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "lv_ef", "1": "lv_edv"}
    assert not metadata["measured_leakage"]["measured"] and "numbers" in metadata["measured_leakage"]["reason"]
    test = metadata["eval_metrics"]["test"]["personal"]
    assert test["scaled_error"] == {"value": 5.0, "interval_95": [4.0, 6.0]}
    assert metadata["personal_or_shared"]["better"] == "personal"
    card = (value_exported.folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert "| bias of lv_ef | -0.500 | -0.500 |" in card and "limits of agreement" in card
    assert "probabilit" not in card.replace("class probabilities", "") and "softmax" not in card


@pytest.mark.slow
def test_the_shared_model_is_exported_too_and_no_other_program_takes_it_for_a_classifier(
    value_run: Run, value_exported: Exported, tmp_path: Path
) -> None:
    shared = export_bundle(**value_run.options(tmp_path / "S", site="shared", program=False))
    assert check_bundle(shared.folder).passed
    assert shared.metadata["eval_metrics"]["test"]["shared"]["scaled_error"]["value"] == pytest.approx(6.0)
    with pytest.raises(ConfigError, match="gives numbers"):
        open_bundle(value_exported.folder)


@pytest.mark.slow
def test_a_network_of_ones_own_writes_values_of_arrays(tmp_path: Path) -> None:
    images, masks = images_and_masks(8)
    wanted = targets("regression", masks)
    data = {"north": fl.SiteData(train=(images[:4], wanted[:4]), test=(images[4:], wanted[4:]))}
    options: dict[str, Any] = {"task": "regression", "classes": ("large", "small"), "rounds": 1}
    choice = fl.method("dual_lora", rank=2, targets=r"blocks\.2\.fc", head="head", blocks="blocks")
    run = fl.federate(lambda: Pixels(2, dense=False), choice, data, **options)
    exported = run.export("north", tmp_path / "B")
    assert check_bundle(exported.folder, run=True).passed
    (tmp_path / "studies").mkdir()
    np.save(tmp_path / "studies" / "one.npy", images[5].numpy())
    infer(exported.folder, tmp_path / "studies", tmp_path / "out")
    with (tmp_path / "out" / "values.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    with torch.no_grad():
        expected = run.personal("north")(images[5:6])[0].tolist()
    assert [float(row["large"]), float(row["small"])] == pytest.approx(expected, rel=1e-4)
