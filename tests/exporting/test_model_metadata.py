"""What a bundle says about itself: valid for MONAI, complete, and discreet."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from monai_fedlora.data.origin import Origin
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.calibration import calibrate
from monai_fedlora.exporting.check.metadata import metadata_schema
from monai_fedlora.exporting.claim import claim_checklist
from monai_fedlora.exporting.finished import read_finished
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.model_card import format_metric, model_card
from monai_fedlora.exporting.model_metadata import model_metadata
from monai_fedlora.privacy.privacy_settings import PrivacySettings

from .finished_runs import Run


def describe(
    run: Run, site: str, privacy: PrivacySettings | None = None, start: Origin | None = None
) -> dict[str, Any]:
    model = read_finished(run.workspace, site)
    if privacy is not None:
        declared = dict.fromkeys(model.plan.sites, 20)
        plan = dataclasses.replace(model.plan, privacy=privacy, declared_cases=declared, start=start)
        model = dataclasses.replace(model, plan=plan)
    return model_metadata(
        model,
        name="B",
        modality=modality_of(run.plan),
        backbone=str(run.backbone),
        packages=("fire",),
        files_sha256={"models/model.pt": "0" * 64},
        calibration=calibrate(model.evidence),
        reference="of no interest here",
    )


@pytest.mark.parametrize("site", ["site-1", "shared"])
def test_metadata_fits_the_schema(stored_run: Run, site: str) -> None:
    metadata = describe(stored_run, site)
    jsonschema.validate(metadata, metadata_schema())
    assert json.loads(json.dumps(metadata, allow_nan=False)) == metadata


def test_provenance_is_complete(stored_run: Run) -> None:
    origin = describe(stored_run, "site-1")["provenance"]
    plan = stored_run.plan
    assert origin["not_for_clinical_use"] is True
    assert origin["backbone"] == {"file": "cine_1.safetensors", "sha256": plan.backbone_sha256, "size": "micro"}
    assert origin["method"]["name"] == "dual_lora"
    assert origin["method"]["hyperparameters"]["targets"] == ["q", "v"]
    assert (origin["rounds"], origin["participating_sites"], origin["seed"]) == (3, 3, 4)
    assert (origin["kind"], origin["site"], origin["training_cases"]) == ("personal", "site-1", 20)
    assert origin["validation_cases"] == 12
    assert origin["licence"].keys() == {"software", "weights"}
    software = {"monai", "torch", "numpy", "nvflare", "peft", "pytorch-ignite", "python", "monai-fedlora"}
    assert origin["software"].keys() == software
    assert origin["files_sha256"] == {"models/model.pt": "0" * 64}


def test_test_metrics_are_the_sites_own(stored_run: Run) -> None:
    metadata = describe(stored_run, "site-1")
    recorded = read_finished(stored_run.workspace, "site-1").test
    found = metadata["eval_metrics"]["test"]
    assert list(found) == ["personal", "shared"]
    for view, metrics in found.items():
        assert metrics["n"] == recorded[view]["n"]
        assert metrics["auroc"]["value"] == recorded[view]["auroc"]
        low, high = metrics["balanced_accuracy"]["interval_95"]
        assert low <= recorded[view]["balanced_accuracy"] <= high


def test_no_other_site_is_named(stored_run: Run) -> None:
    for site, allowed in (("site-1", "site-1"), ("shared", None)):
        text = json.dumps(describe(stored_run, site))
        assert [name for name in stored_run.plan.sites if name in text] == ([allowed] if allowed else [])
        assert str(stored_run.backbone.parent) not in text


def test_a_model_that_was_trained_under_a_budget_says_what_is_outside_of_it(stored_run: Run) -> None:
    budget = PrivacySettings(epsilon=8.0, delta=1e-5, clip=1.0)
    for site, said in (("site-1", "outside of that promise"), ("shared", "and so are the weights")):
        plain = describe(stored_run, site)["limitations"]
        (text,) = set(describe(stored_run, site, privacy=budget)["limitations"]) - set(plain)
        assert "(epsilon 8, delta 1e-05)" in text
        assert said in text


def test_a_budget_says_nothing_of_what_the_weights_began_from(stored_run: Run) -> None:
    budget = PrivacySettings(epsilon=8.0, delta=1e-5, clip=1.0)
    said = " ".join(describe(stored_run, "shared", privacy=budget, start=Origin())["limitations"])
    assert "so are the weights" not in said
    assert "The weights began from tensors of an earlier training, for which this says nothing" in said


def test_no_text_is_rewritten_by_the_config_parser(stored_run: Run) -> None:
    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(text for part in value.values() for text in strings(part))]
        if isinstance(value, list):
            return [text for part in value for text in strings(part)]
        return [value] if isinstance(value, str) else []

    for text in strings(describe(stored_run, "site-1")):
        assert "#" not in text and "@" not in text and not text.startswith(("$", "%")), text


def test_card_tells_what_the_metadata_say(exported: Exported) -> None:
    card = (exported.folder / "docs" / "README.md").read_text()
    metadata = exported.metadata
    for text in [
        "not for clinical use",
        metadata["provenance"]["backbone"]["sha256"],
        metadata["provenance"]["plan_fingerprint"],
        "rank 8, alpha 16",
        "20 training cases",
        "| personal model | shared model |",
        format_metric(metadata["eval_metrics"]["test"]["personal"]["auroc"]),
        *metadata["limitations"],
    ]:
        assert text in card


@pytest.mark.slow
def test_card_without_test_metrics(make_run: Callable[..., Run]) -> None:
    run = make_run()
    (run.workspace / "results.json").unlink()
    assert "No test metrics were recorded." in model_card(describe(run, "shared"), usage="")


def test_undefined_metric_is_empty_in_the_card() -> None:
    assert format_metric(None) == format_metric({"value": None, "interval_95": None}) == ""
    assert format_metric({"value": 0.5, "interval_95": None}) == "0.500"
    assert format_metric({"value": 0.5, "interval_95": [0.25, 1.0]}) == "0.500 (0.250 to 1.000)"


def test_licence_leaves_the_weights_to_their_owners(exported: Exported) -> None:
    text = (exported.folder / "LICENSE").read_text()
    assert "derived from the backbone cine_1.safetensors" in text
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text


def test_metrics_fixture_is_what_sites_report(stored_run: Run) -> None:
    reported = read_finished(stored_run.workspace, "site-1").test["personal"]
    assert reported.keys() == classification_metrics([[0.5, 0.5]], [0]).keys()


def test_names_in_a_card_stay_text(exported: Exported) -> None:
    name = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) `x` | y"
    metadata = {**exported.metadata, "label_classes": name, "intended_use": name}
    for text in (model_card(metadata, usage="run `it`"), claim_checklist(metadata)):
        assert r"\<img src=x onerror=alert(1)> \[a](javascript:alert(1)) \`x\` \| y" in text
        assert not re.search(r"(?<!\\)(<img|\[a\])", text)
    assert "run `it`" in model_card(metadata, usage="run `it`")
