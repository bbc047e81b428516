"""An export says whether the shared model does better on the site's own test cases, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from monai_fedlora.api.exported_model import Exported as Told
from monai_fedlora.clinic.trust import read_trust
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.finished import read_finished
from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.exporting.personal_or_shared import discordant, judged, mcnemar, personal_or_shared
from monai_fedlora.tasks.regression import REGRESSION
from tests.exporting.finished_runs import Run


def right(*counts: int, of: tuple[int, ...] = (10, 10)) -> dict[str, Any]:
    """Metrics of a classifier that gets so many of each class right."""
    labels = [label for label, total in enumerate(of) for _ in range(total)]
    answers = [
        label if number < counts[label] else 1 - label for label, total in enumerate(of) for number in range(total)
    ]
    probabilities = torch.nn.functional.one_hot(torch.tensor(answers), 2).double().numpy()
    return classification_metrics(probabilities, torch.tensor(labels).numpy())


def by_class(
    personal: dict[str, Any], shared: dict[str, Any], *, pairs: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Classifiers compared."""
    said: dict[str, Any] = {"metric": "balanced_accuracy", "word": "balanced accuracy", "lower_is_better": False}
    return judged(personal, shared, pairs=pairs, **said)


def test_shared_model_that_does_better_is_offered_with_how_sure_that_is() -> None:
    entry = by_class(right(6, 5), right(8, 8), pairs=(1, 6))
    assert (entry["better"], entry["n"], entry["personal"], entry["shared"]) == ("shared", 20, 0.55, 0.8)
    assert (entry["pairs"], entry["p"]) == ([1, 6], pytest.approx(0.125))
    assert "0.800 against 0.550" in entry["said"] and "20 test cases" in entry["said"]
    assert "by chance" in entry["said"]
    assert "by chance" not in by_class(right(0, 0), right(10, 10), pairs=(0, 20))["said"]


def test_without_predictions_of_both_the_intervals_say_how_sure_it_is() -> None:
    entry = by_class(right(6, 5), right(8, 8))
    assert (entry["better"], entry["pairs"], entry["p"]) == ("shared", None, None)
    assert "95 % intervals" in entry["said"] and "overlap" in entry["said"]
    assert "overlap" not in by_class(right(0, 1), right(10, 10))["said"]


def test_equal_models_are_a_tie() -> None:
    entry = by_class(right(7, 8), right(8, 7), pairs=(3, 3))
    assert entry["better"] == "tie" and "tie" in entry["said"]


@pytest.mark.parametrize(("personal", "shared"), [({}, {}), ({"n": 4}, right(1, 1)), (right(1, 1), {})])
def test_comparison_that_cannot_be_made_says_why(personal: dict[str, Any], shared: dict[str, Any]) -> None:
    entry = by_class(personal, shared)
    assert entry["better"] == "unknown" and "not known" in entry["said"]


@pytest.mark.parametrize(
    ("personal", "shared", "better"), [(6.2, 4.5, "shared"), (4.5, 6.2, "personal"), (5, 5, "tie")]
)
def test_of_errors_the_smaller_one_is_better(personal: float, shared: float, better: str) -> None:
    task = REGRESSION
    one, other = (
        {"n": 9, task.key: v, f"{task.key}_low": v - 1, f"{task.key}_high": v + 1} for v in (personal, shared)
    )
    entry = judged(one, other, pairs=None, metric=task.key, word=task.word, lower_is_better=task.lower_is_better)
    assert entry["better"] == better
    assert ("scaled error 4.500 against 6.200" in entry["said"]) == (better != "tie")
    assert "overlap" in entry["said"]


@given(st.integers(0, 40), st.integers(0, 40))
def test_test_of_discordant_cases_is_the_exact_binomial_one(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected)


def test_discordant_cases_are_counted_one_by_one() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    personal, shared = (torch.nn.functional.one_hot(torch.tensor(a), 2) for a in ([0, 1, 1, 0, 1], [1, 0, 0, 1, 1]))
    kept = Evidence(logits={"test": personal}, shared_logits={"test": shared}, labels={"test": labels})
    assert discordant(kept) == (2, 2)
    assert discordant(replace(kept, shared_logits={})) is None
    assert discordant(replace(kept, shared_logits={"test": shared[:2]})) is None


@pytest.mark.slow
def test_export_card_answers_and_terminal_say_that_the_shared_model_does_better(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = make_run(given_views={"personal": right(6, 5), "shared": right(8, 8)})
    exported = export_bundle(**run.options(tmp_path / "B"), program=False, statistics=False)
    entry = exported.metadata["personal_or_shared"]
    assert entry["better"] == "shared"
    assert json.loads((exported.folder / "configs" / "metadata.json").read_text())["personal_or_shared"] == entry
    assert entry["said"][1:] in (exported.folder / "docs" / "README.md").read_text()
    (note,) = (note for note in read_trust(exported.metadata).notes if "shared" in note)
    assert f"({entry['n']} case" in note
    assert "balanced accuracy" not in note
    _, said, command, *_ = Told.of(exported, run=run.workspace).notes
    assert said == entry["said"]
    assert command.endswith(
        f"monai-fedlora export --run {run.workspace} --site shared --output {tmp_path / 'B-shared'}"
    )
    (run.workspace / "shared.safetensors").unlink()
    assert "server" in Told.of(exported, run=run.workspace).notes[2]
    assert "give 'shared' for the site" in Told.of(exported, run=None).notes[2]


@pytest.mark.slow
def test_nothing_is_said_against_a_better_personal_model_or_of_a_shared_one(
    make_run: Callable[..., Run], exported: Exported
) -> None:
    assert exported.metadata["personal_or_shared"]["better"] == "personal"
    assert not any("shared" in note for note in read_trust(exported.metadata).notes)
    run = make_run()
    assert personal_or_shared(read_finished(run.workspace, "shared")) is None
