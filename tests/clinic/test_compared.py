"""What a reader is told of the shared model, from the numbers that a bundle stores."""

from __future__ import annotations

from typing import Any

import pytest

from monai_fedlora.clinic.compared import compared
from monai_fedlora.clinic.trust import read_trust
from monai_fedlora.serve.card import model_card, model_warnings

STORED = {"metric": "balanced_accuracy", "n": 20, "pairs": [2, 3], "said": "as engineers say it (exact McNemar test)"}
APART = (
    "on this hospital's own test cases the shared model did better than this personal one (20 cases); "
    "ask for the shared one"
)


def measured(personal: float, shared: float, *, width: float = 0.0) -> dict[str, Any]:
    """Metadata of an earlier version, with intervals if they have a width."""

    def metrics(value: float) -> dict[str, Any]:
        interval = {"interval_95": [value - width, value + width]} if width else {}
        return {"n": 20, "balanced_accuracy": {"value": value} | interval}

    views = {"personal": metrics(personal), "shared": metrics(shared)}
    return {"provenance": {"kind": "personal"}, "eval_metrics": {"test": views}}


def stored(better: str, p: float | None) -> dict[str, Any]:
    return measured(0.5, 0.8, width=0.01) | {"personal_or_shared": STORED | {"better": better, "p": p}}


@pytest.mark.parametrize(
    "metadata",
    [stored("shared", 0.01), stored("shared", None), measured(0.5, 0.8), measured(0.5, 0.8, width=0.1)],
    ids=["by the test", "by intervals", "an earlier bundle", "an earlier bundle with intervals"],
)
def test_shared_model_that_did_better_is_said_before_any_answer(metadata: dict[str, Any]) -> None:
    assert model_warnings(metadata) == [APART]
    assert APART in read_trust(metadata).notes


@pytest.mark.parametrize(
    "metadata",
    [stored("shared", 0.4), stored("tie", 1.0), measured(0.5, 0.8, width=0.2)],
    ids=["chance", "tie", "an earlier bundle"],
)
def test_models_that_are_not_told_apart_are_a_note_alone(metadata: dict[str, Any]) -> None:
    assert model_warnings(metadata) == []
    (note,) = (note for note in read_trust(metadata).notes if "shared" in note)
    assert note.endswith("could not be told apart")


@pytest.mark.parametrize(
    "metadata",
    [stored("personal", 0.01), stored("unknown", None), measured(0.8, 0.5), {}, {"personal_or_shared": None}],
)
def test_nothing_is_said_where_nothing_speaks_for_the_shared_model(metadata: dict[str, Any]) -> None:
    assert compared(metadata) is None


def test_statistics_stay_in_the_card() -> None:
    assert model_card(stored("shared", 0.01))["Beside the shared model"] == STORED["said"]
