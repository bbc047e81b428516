"""The checklist for reports: every topic, with what the run knows, and nothing made up."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.claim import claim_checklist
from monai_fedlora.exporting.model_card import format_metric, model_card

from .finished_runs import Run
from .test_model_metadata import describe

TO_FILL_IN = "*To be filled in by the site.*"


def items(text: str) -> dict[int, str]:
    """What the checklist says under each number."""
    found = re.findall(r"^(\d+)\. \*\*(.+?)\.\*\* (.+)$", text, flags=re.MULTILINE)
    return {int(number): said for number, _, said in found}


def test_every_topic_is_there_in_order(exported: Exported) -> None:
    text = (exported.folder / "docs" / "CLAIM.md").read_text()
    assert text == claim_checklist(exported.metadata)
    assert list(items(text)) == list(range(1, 43))


def test_what_the_run_knows_is_filled_in(exported: Exported) -> None:
    said, metadata = items(claim_checklist(exported.metadata)), exported.metadata
    origin = metadata["provenance"]
    for number, text in {
        7: "Cases of 3 sites",
        9: metadata["preprocessing"],
        11: "0 is NOR, 1 is ABN",
        19: "20 training, 12 validation, 12 test",
        23: f"torch {origin['software']['torch']}",
        24: origin["backbone"]["sha256"],
        25: "3 rounds of 2 local epochs in 3 sites; bundle cine_cmr_dual_lora_classification, rank 8",
        29: "balanced accuracy: MOVER",
        36: f"AUROC {format_metric(metadata['eval_metrics']['test']['personal']['auroc'])}",
        38: metadata["limitations"][0],
        41: origin["plan_fingerprint"],
    }.items():
        assert text in said[number]


def test_what_only_people_know_is_left_to_them(exported: Exported) -> None:
    said = items(claim_checklist(exported.metadata))
    for number in (2, 4, 5, 8, 10, 12, 13, 14, 15, 16, 17, 18, 20, 30, 31, 33, 34, 35, 37, 39, 40, 42):
        assert said[number] == TO_FILL_IN


@pytest.mark.parametrize(
    ("answer", "image", "there", "not_there"),
    [
        ("values", "MR", "limits of agreement", "Dice"),
        ("segmentation", "MR", "in each phase", "accuracy"),
        ("segmentation", "photograph", "Dice", "Volumes"),
        ("probabilities", "MR", "calibration error", "Dice"),
    ],
)
def test_measures_are_those_of_the_answer(stored_run: Run, answer: str, image: str, there: str, not_there: str) -> None:
    metadata = describe(stored_run, "site-1")
    metadata["network_data_format"]["outputs"]["pred"]["format"] = answer
    metadata["network_data_format"]["inputs"]["image"]["modality"] = image
    said = items(claim_checklist(metadata))[28]
    assert there in said and not_there not in said


def test_training_tells_how_the_server_and_the_site_went_on(stored_run: Run) -> None:
    metadata = describe(stored_run, "site-1")
    steps = {"optimizer": "fedadam", "learning_rate": 0.1}
    metadata["provenance"] |= {"fine_tune_epochs": 2, "site_weights": "equal", "server_optimizer": steps}
    said, card = items(claim_checklist(metadata)), model_card(metadata, usage="")
    for text in (said[25], card):
        assert "all updates counting alike, on the server optimizer fedadam, learning_rate 0.1, then 2 epochs" in text
    assert said[26].startswith("The model after 3 rounds and its site's own epochs;")


@pytest.mark.slow
def test_a_model_without_results_leaves_them_open(make_run: Callable[..., Run]) -> None:
    run = make_run()
    (run.workspace / "results.json").unlink()
    said = items(claim_checklist(describe(run, "shared")))
    assert said[36] == TO_FILL_IN
    assert said[19].startswith("How that number came about")


def test_no_other_site_is_named(stored_run: Run) -> None:
    for site in ("site-1", "shared"):
        text = claim_checklist(describe(stored_run, site))
        assert [name for name in ("clinic-b", "clinic-c") if name in text] == []
