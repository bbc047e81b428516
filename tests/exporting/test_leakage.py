"""What an export measures of itself, says in its card, and what today's reference gives away."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.exporting.leakage import OUTSIDE, TEST, TRAINING, VALIDATION, Cases, Leakage, Mean, Shipped, measure
from monai_fedlora.exporting.leakage_card import card_entry
from monai_fedlora.exporting.leakage_means import feature_mean
from monai_fedlora.exporting.measured import measured_leakage, reference_means
from monai_fedlora.exporting.model_card import filled
from tests.helpers import through_json


def some(count: int, *, seed: int, sure: float = 1.0, dim: int = 24) -> Cases:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    logits = torch.randn(count, 2, generator=generator) + sure * torch.nn.functional.one_hot(labels, 2)
    features = torch.randn(count, dim, generator=generator)
    return Cases(logits=logits, labels=labels, units=torch.arange(count), features=features)


GROUPS = {
    TRAINING: some(60, seed=1, sure=4.0),
    VALIDATION: some(30, seed=2),
    TEST: some(50, seed=3),
    OUTSIDE: some(80, seed=4),
}


def named(leakage: Leakage) -> dict[tuple[str, str], Any]:
    return {(attack.name, attack.target): attack for attack in leakage.attacks}


def test_an_overfitted_model_is_told_by_its_loss_and_its_confidence() -> None:
    found = named(measure(GROUPS, Shipped()))
    for name in ("loss", "confidence", "entropy"):
        attack = found[name, "weights"]
        assert (attack.n_members, attack.n_others, attack.members) == (60, 130, (TRAINING,))
        assert attack.interval_95[0] > 0.6


def test_every_number_has_its_own_members_and_others() -> None:
    def cells(cases: Cases) -> torch.Tensor:
        return cases.logits

    of_test = Mean(name="test mean", members=(TEST,), value=cells(GROUPS[TEST]).mean(dim=0), count=50, of=cells)
    vector = feature_mean("mean", GROUPS[TRAINING].features.mean(dim=0), 60)  # type: ignore[union-attr]
    found = named(measure(GROUPS, Shipped(vectors=(vector,), means=(of_test,), temperature=1.3)))
    counts = {key: (attack.members, attack.n_members, attack.n_others) for key, attack in found.items()}
    assert counts["tracing", "test mean"] == ((TEST,), 50, 80)
    assert counts["pull", "temperature"] == ((VALIDATION,), 30, 130)
    assert counts["likelihood ratio", "mean"] == ((TRAINING,), 60, 130)
    assert found["likelihood ratio", "mean"].auc > 0.55


def test_the_strongest_attack_comes_first_and_the_bound_is_over_all() -> None:
    found = measure(GROUPS, Shipped())
    assert [attack.auc for attack in found.attacks] == sorted((a.auc for a in found.attacks), reverse=True)
    assert found.upper_bound == max(attack.interval_95[1] for attack in found.attacks)
    assert Leakage(attacks=()).upper_bound == 1.0


def test_what_is_not_measured_says_why() -> None:
    of_test = Mean(name="test mean", members=(TEST,), value=torch.zeros(2), count=50, of=lambda cases: cases.logits)
    alone = {TRAINING: GROUPS[TRAINING], TEST: GROUPS[TEST]}
    found = measure(alone, Shipped(means=(of_test,), temperature=2.0, threshold=3.0, unknown={"scale": "no idea"}))
    assert "--outside" in found.not_measured["tracing on test mean"]
    assert "validation" in found.not_measured["pull on temperature"]
    assert "distances" in found.not_measured["distance on reference"]
    assert found.not_measured["scale"] == "no idea"
    assert {attack.target for attack in found.attacks} == {"weights"}


def test_other_cases_from_elsewhere_are_no_silent_comparison() -> None:
    assert measure(GROUPS, Shipped()).warnings == ()
    strange = measure({**GROUPS, OUTSIDE: some(80, seed=4, sure=-4.0)}, Shipped())
    assert "not of the same kind" in strange.warnings[0]


def test_figures_survive_json_and_other_json_is_refused() -> None:
    found = measure(GROUPS, Shipped(temperature=1.3))
    value = through_json(found.to_json())
    assert Leakage.from_json(value).to_json() == value
    broken: list[Any] = [[], {}, {**value, "format": 2}, {**value, "attacks": [{}]}, {**value, "not_measured": 3}]
    for wrong in broken:
        with pytest.raises(ExportError, match="no figures of an audit"):
            Leakage.from_json(wrong)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["format", "attacks", "not_measured", "warnings"]), inner, max_size=4)
        ),
    )
)
def test_any_other_json_is_refused_by_name(value: Any) -> None:
    with suppress(ExportError):
        Leakage.from_json({"format": 1, **value} if isinstance(value, dict) else value)


def test_the_card_holds_two_digits_with_the_limits_rounded_outwards() -> None:
    found = measure(GROUPS, Shipped(unknown={"scale": "no idea", "shift": "no idea"}))
    entry = through_json(card_entry(found))
    for attack, said in zip(found.attacks, entry["attacks"], strict=True):
        assert said["auc"] == pytest.approx(attack.auc, abs=0.005)
        low, high = said["interval_95"]
        assert attack.interval_95[0] - 0.01 < low <= attack.interval_95[0]
        assert attack.interval_95[1] <= high < attack.interval_95[1] + 0.01
        assert set(said) == {"name", "target", "members", "n_members", "n_others", "auc", "interval_95"}
    text = filled("measured_leakage.md", leakage=entry)
    assert "no proof" in text
    assert "- scale, shift: no idea" in text


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (Evidence(missing="nothing was kept"), "nothing was kept"),
        (Evidence(logits={TEST: torch.zeros(3, 2)}, labels={TEST: torch.zeros(3)}), "kept no predictions of its train"),
    ],
)
def test_a_run_of_an_earlier_version_says_that_nothing_was_measured(evidence: Evidence, reason: str) -> None:
    found = measured_leakage(evidence, "it has none", {})
    entry = card_entry(found)
    assert (found.attacks, entry["measured"]) == ((), False)
    assert reason in filled("measured_leakage.md", leakage=entry)


def test_vectors_are_told_by_their_shapes() -> None:
    tensors = {
        "mean": torch.zeros(24),
        "precision": torch.eye(24),
        "scale": torch.ones(1),
        "codes": torch.zeros(2, 3, 4),
    }
    means, unknown = reference_means(tensors, 30)
    assert [(mean.name, mean.of(GROUPS[TEST]).shape) for mean in means] == [("mean", (50, 24))]
    assert set(unknown) == {"scale", "codes"}
    for directions in (torch.randn(24, 5), torch.randn(5, 24)):
        means, unknown = reference_means({"location": torch.zeros(5), "directions": directions}, 30)
        assert [(mean.name, mean.of(GROUPS[TEST]).shape) for mean in means] == [("location", (50, 5))]
        assert unknown == {}


def attacks_of(exported: Exported) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    entry = exported.metadata["measured_leakage"]
    return {(attack["name"], attack["target"]): attack for attack in entry["attacks"]}


def test_a_bundle_says_what_was_measured(exported: Exported, image_exported: Exported) -> None:
    for found in (exported, image_exported):
        attacks = attacks_of(found)
        assert {"loss", "confidence", "entropy"} <= {name.removesuffix(", reversed") for name, _ in attacks}
        assert {"temperature", "validation log-likelihood"} <= {target for _, target in attacks}
        card = (found.folder / "docs" / "README.md").read_text()
        assert "## Measured leakage" in card
        assert found.metadata["measured_leakage"]["attacks"][0]["target"] in card


def test_the_reference_does_not_tell_its_members(exported: Exported, image_exported: Exported) -> None:
    for found in (exported, image_exported):
        told = [attack for (_, target), attack in attacks_of(found).items() if target not in ("weights", "temperature")]
        assert told
        assert max(attack["interval_95"][0] for attack in told) <= 0.6
