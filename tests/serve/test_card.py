"""What the page says about a model is what its bundle says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.serve.card import describe_models, model_card


def test_card_repeats_the_metadata(classifier: Classifier, exported: Exported) -> None:
    model, metadata = describe_models(classifier, None), exported.metadata
    assert model["name"] == metadata["name"]
    assert model["limits"] == metadata["limitations"]
    assert model["intended_use"] == metadata["intended_use"]
    assert model["sha256"] == classifier.sha256
    assert model["modality"] == "cine"
    assert model["classes"] == ["NOR", "ABN"]
    assert set(model["accepts"]) >= {".nii.gz", ".nii", ".zip", ".dcm"}
    assert "not for clinical use" in model["notice"]
    card = model["card"]
    assert all(isinstance(label, str) and isinstance(text, str) for label, text in card.items())
    assert card["Site"] == "site-1"
    assert card["Rounds"] == "3"
    assert card["Participating sites"] == "3"
    test = metadata["eval_metrics"]["test"]["personal"]
    low, high = test["auroc"]["interval_95"]
    assert card["Test AUROC"] == f"{test['auroc']['value']:.2f} (95 % interval {low:.2f} to {high:.2f})"
    assert card["Test cases"] == str(test["n"])
    assert card["Calibration"].startswith(f"temperature {metadata['calibration']['temperature']:.2f}, fitted on")


def test_photograph_model_takes_photographs(image_classifier: Classifier) -> None:
    model = describe_models(image_classifier, None)
    assert model["modality"] == "photograph"
    assert ".jpg" in model["accepts"]
    assert ".zip" not in model["accepts"]


def test_shared_model_is_measured_without_the_private_part() -> None:
    views = {view: {"n": 9, "accuracy": {"value": value}} for view, value in (("personal", 0.9), ("shared", 0.6))}
    metadata = {"eval_metrics": {"test": views}, "provenance": {"kind": "shared", "site": None}}
    card = model_card(metadata)
    assert card == {"Kind": "shared by all sites", "Test cases": "9", "Test accuracy": "0.60"}


def test_bundle_that_says_little_has_a_short_card() -> None:
    assert model_card({}) == {}
    assert model_card({"calibration": {"fitted": False, "reason": "few cases"}}) == {
        "Calibration": "not calibrated: few cases"
    }
    assert len(model_card({"task": "x" * 1000})["Task"]) == 300


def test_card_is_of_the_bundle_that_was_opened(classifier: Classifier, tmp_path: Path) -> None:
    moved = dataclasses.replace(classifier, path=tmp_path / "gone")
    assert describe_models(moved, None) == describe_models(classifier, None)
