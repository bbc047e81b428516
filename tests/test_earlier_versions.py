"""Files that an earlier version wrote are read, under the names that things have now.

``earlier/`` holds the ``results.json`` of a run of two sites on phantoms and the ``metadata.json`` of a model exported
from it, as that version wrote them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.clinic.bundle import current_names
from monai_fedlora.clinic.compared import compared
from monai_fedlora.exporting.pooled import pooled_test
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import read_json
from monai_fedlora.reporting.record import parse_record
from monai_fedlora.serve.card import model_card
from monai_fedlora.site_report import EARLIER_VIEWS, PERSONAL, SHARED, VIEWS

EARLIER = Path(__file__).parent / "earlier"


@pytest.fixture
def results() -> dict[str, Any]:
    found: dict[str, Any] = read_json(EARLIER / "results_format_1.json")
    assert all(set(answer["test"]) == set(EARLIER_VIEWS) for answer in found["final"].values())
    return found


@pytest.fixture
def metadata() -> dict[str, Any]:
    found: dict[str, Any] = read_json(EARLIER / "metadata_2026_11.json")
    assert set(found["eval_metrics"]["test"]) == set(EARLIER_VIEWS)
    return found


def test_a_runs_record_has_both_models_in_every_round_and_at_the_end(results: dict[str, Any]) -> None:
    record = parse_record(results, "results.json")
    answers = [answer for entry in record.rounds for answer in entry.answers.values()]
    assert len(answers) == 4 and all(set(answer.validation) == set(VIEWS) for answer in answers)
    for site, answer in record.final.items():
        for earlier, view in EARLIER_VIEWS.items():
            stored = results["final"][site]["test"][earlier]
            assert answer.test[view].values["balanced_accuracy"] == stored["balanced_accuracy"]
            assert answer.test[view].confusion == tuple(map(tuple, stored["confusion_matrix"]))


def test_a_runs_plan_and_test_metrics_serve_an_export_of_the_shared_model(results: dict[str, Any]) -> None:
    pooled = pooled_test(results, Plan.from_json(results["plan"]))
    assert pooled is not None and pooled["n"] == 40


def test_a_bundle_says_of_both_models_what_it_said(metadata: dict[str, Any]) -> None:
    found = current_names(metadata)
    assert found["eval_metrics"]["test"] == dict(zip(VIEWS, metadata["eval_metrics"]["test"].values(), strict=True))
    assert "Test balanced accuracy" in model_card(found)
    assert compared(found) == compared(metadata)  # from an entry that has kept its name


def test_a_bundle_without_a_comparison_is_compared_by_its_test_metrics(metadata: dict[str, Any]) -> None:
    del metadata["personal_or_shared"]
    views = metadata["eval_metrics"]["test"]
    assert views["private_on"]["balanced_accuracy"]["value"] < views["private_off"]["balanced_accuracy"]["value"]
    found = compared(current_names(metadata))
    assert found is not None and not found.warns and "20 cases" in found.sentence


@pytest.mark.parametrize("spoilt", [{}, {"eval_metrics": []}, {"eval_metrics": {}}, {"eval_metrics": {"test": 1}}])
def test_metadata_without_test_metrics_stay_as_they_are(spoilt: dict[str, Any]) -> None:
    assert current_names(spoilt) == spoilt


def test_the_views_of_today_are_the_two_models() -> None:
    assert VIEWS == (PERSONAL, SHARED) == ("personal", "shared")
