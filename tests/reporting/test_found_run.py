"""What belongs to one run is found, and what belongs to another is not mixed in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import FedLoraError
from monai_fedlora.federated.lock import LOCK_NAME, FolderLock
from monai_fedlora.files import read_json, write_json
from monai_fedlora.reporting.found_run import Bin, read_run, reliability_bins
from monai_fedlora.reporting.page import page
from monai_fedlora.site_report import PERSONAL

MODELS = Path("private") / "trial"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_all_models_of_a_simulation_are_found(finished: Path) -> None:
    run = read_run(finished)
    assert run.personal.keys() == {"site-1", "site-2"}
    assert run.passed_over == {}
    assert all(personal.overlaps and personal.reliability for personal in run.personal.values())


def test_reliability_gives_the_recorded_calibration_error(finished: Path) -> None:
    run = read_run(finished)
    for site, personal in run.personal.items():
        bins = personal.reliability.values()
        cases = sum(each.cases for each in bins)
        error = sum(each.cases * abs(each.accuracy - each.confidence) for each in bins) / cases
        recorded = run.record.final[site].test[PERSONAL]
        assert cases == recorded.n
        assert error == pytest.approx(recorded.values["ece"], abs=6e-5)


def test_bins_agree_with_the_metric_on_edges_and_elsewhere() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet((1, 1, 1), size=400)
    probabilities[:4] = [[0.6, 0.4, 0], [1, 0, 0], [0.4, 0.4, 0.2], [0.8, 0.1, 0.1]]
    labels = generator.integers(0, 3, size=400)
    bins = reliability_bins(probabilities, labels)
    error = sum(b.cases * abs(b.accuracy - b.confidence) for b in bins.values()) / 400
    assert error == pytest.approx(classification_metrics(probabilities, labels)["ece"], abs=1e-12)
    assert reliability_bins(np.array([[0.0, 1.0]]), np.array([0])) == {14: Bin(cases=1, confidence=1.0, accuracy=0.0)}


def test_a_hospitals_own_folder_is_a_report_of_itself(finished: Path) -> None:
    run = read_run(finished / MODELS / "site-2")
    assert run.record.status == "site"
    assert run.record.final.keys() == run.personal.keys() == {"site-2"}
    text = page(run)
    assert "There is no record of the server here" in text
    assert read_run(finished / MODELS).personal.keys() == {"site-1", "site-2"}


def test_a_model_of_another_run_is_passed_over(copied: Path) -> None:
    results = read_json(copied / "results.json")
    results["final"]["site-1"]["test"][PERSONAL]["balanced_accuracy"] = 0.123
    del results["final"]["site-2"]
    write_json(copied / "results.json", results)
    run = read_run(copied)
    assert run.personal == {}
    assert run.passed_over.keys() == {"site-1", "site-2"}
    assert "The model of site-1 was passed over" in page(run)


def test_a_damaged_model_is_named_and_costs_its_own_part_alone(copied: Path) -> None:
    path = copied / MODELS / "site-1" / "final.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    run = read_run(copied)
    assert run.personal.keys() == {"site-2"}
    assert "may be truncated" in run.passed_over["site-1"]


def test_a_record_without_models_or_predictions_is_a_page(copied: Path) -> None:
    (copied / MODELS / "site-1" / "evidence.safetensors").unlink()
    shutil.rmtree(copied / MODELS / "site-2")
    run = read_run(copied)
    assert run.personal.keys() == {"site-1"}
    assert run.personal["site-1"].reliability == {}
    shutil.rmtree(copied / "private")
    assert "There are no personal models here" in page(read_run(copied))


def test_a_record_below_the_folder_is_found_unless_there_are_two(finished: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(finished / "results.json", tmp_path / name)
    assert read_run(tmp_path).record.sites == ("site-1", "site-2")
    write_json(tmp_path / "b" / "results.json", {**read_json(finished / "results.json"), "seconds": 1})
    with pytest.raises(FedLoraError, match="holds 2 runs; give one of"):
        read_run(tmp_path)


def test_a_record_that_nobody_writes_any_more_is_of_an_interrupted_run(copied: Path) -> None:
    write_json(copied / "results.json", {**read_json(copied / "results.json"), "status": "running", "final": {}})
    (copied / LOCK_NAME).unlink(missing_ok=True)
    assert read_run(copied).record.status == "running"
    with FolderLock(copied):
        assert read_run(copied).record.status == "running"
    left = read_run(copied)
    assert left.record.status == "interrupted"
    assert read_run(copied.parent).record.status == "interrupted"
    with FolderLock(copied.parent):
        assert read_run(copied.parent).record.status == "running"
    assert "This run is not finished, but was interrupted (stopped): its process was told to end" in page(left)


def test_what_is_no_run_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(FedLoraError, match="is no folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(FedLoraError, match=r"holds neither results\.json nor a site's final\.safetensors"):
        read_run(tmp_path)
    (tmp_path / "results.json").write_text('{"plan": ')
    with pytest.raises(FedLoraError, match="is not valid JSON"):
        read_run(tmp_path)
