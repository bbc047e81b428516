"""The benchmark of malicious sites deals lesions whole, attacks as it says, and judges against runs without attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from _poisoning import federation
from _poisoning.attacks import ATTACKS, NONE, STRETCH, TARGET, triggered
from _poisoning.federation import Kept, Training, network, plan_of, run
from _poisoning.skin import CLASSES, Photographs, chosen

from monai_fedlora.data.cases import Case
from monai_fedlora.federated.low_bits import rounded_payload
from tests.benchmarks.test_command_lines import loaded

REFERENCE = {"a": np.array([1.0, -2.0], np.float32), "b": np.zeros((2, 2), np.float32)}
TRAINED = [{key: value + step for key, value in REFERENCE.items()} for step in (0.5, 0.25)]


def photographs(count: int = 8, seed: int = 0) -> Photographs:
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % len(CLASSES)
    return Photographs(images=images, labels=labels, lesions=tuple(f"{seed}-{number}" for number in range(count)))


def test_halves_have_no_lesion_in_common_and_no_more_of_a_class_than_asked_for() -> None:
    cases = [
        Case(subject=f"photograph {n}", label=0, group=(*CLASSES, "DF")[n % 5], unit=f"lesion {n // 10}", image="x")
        for n in range(400)
    ]
    a, b = (chosen(cases, half=half, most=12) for half in (0, 1))
    assert not {case.unit for case in a} & {case.unit for case in b}
    for half in (a, b):
        assert [sum(case.group == name for case in half) for name in CLASSES] == [12] * 4 and len(half) == 48


@pytest.mark.parametrize(
    ("attack", "factors"),
    [(NONE, (1, 1)), ("label_flip", (1, 1)), ("sign_flip", (-STRETCH, -STRETCH)), ("scaling", (STRETCH, STRETCH))],
)
def test_what_is_sent_is_the_change_times_a_number(attack: str, factors: tuple[float, float]) -> None:
    for trained, sent, factor in zip(TRAINED, ATTACKS[attack].sends(TRAINED, REFERENCE), factors, strict=True):
        for key, before in REFERENCE.items():
            np.testing.assert_allclose(sent[key] - before, factor * (trained[key] - before), rtol=1e-6)


def test_colluders_agree_to_the_bit_free_riders_send_what_came_and_the_absent_nothing() -> None:
    first, second = ATTACKS["colluders"].sends(TRAINED, REFERENCE)
    for key, before in REFERENCE.items():
        np.testing.assert_array_equal(first[key], second[key])
        np.testing.assert_allclose(first[key] - before, 0.375)
        assert all(sent[key] is before for sent in ATTACKS["free_rider"].sends(TRAINED, REFERENCE))
    assert ATTACKS["absent"].sends(TRAINED, REFERENCE) == []


def test_a_backdoor_marks_every_other_photograph_in_one_corner_alone() -> None:
    own = photographs()
    found = ATTACKS["backdoor"].trains_on(own)
    assert torch.equal(found.images[1::2], own.images[1::2]) and torch.equal(found.labels[1::2], own.labels[1::2])
    assert torch.equal(found.images[::2], triggered(own.images)[::2]) and (found.labels[::2] == TARGET).all()
    changed = (triggered(own.images) != own.images).any(dim=0).any(dim=0)
    assert changed[-8:, -8:].all() and changed.sum() == 64
    flipped = ATTACKS["label_flip"].trains_on(own)
    assert torch.equal(flipped.images, own.images) and (flipped.labels != own.labels).all()


def test_the_worst_attack_is_told_against_the_same_rules_run_without_one() -> None:
    module = loaded("poisoning")
    settings = {"seeds": 2, "federations": "dual_lora:factors", "rules": "mean,median"}

    def told(place: Any) -> dict[str, Any]:
        lost = {"sign_flip": 0.3, "label_flip": 0.1}.get(place.attack, 0.0) * (place.rule == "mean")
        led = 0.6 if place.attack == "backdoor" else 0.2
        both = {"shared": 0.5 + 0.1 * place.seed - lost, "personal": 0.6 - lost / 2}
        return {"accuracy": both, "success": {"shared": led, "personal": 0.2}, "clipped": 1, "refused": 0}

    table = module.compared({place: told(place) for place in module.places(settings)})
    verdict = module.judged(table)["factors"]
    assert verdict["mean"]["shared"] == {
        "honest": 0.0, "drop": 0.3, "by": "sign_flip", "gain": 0.4, "gained_by": "backdoor",
    }  # fmt: skip
    assert verdict["median"]["shared"]["drop"] == 0.0 and verdict["mean"]["personal"]["drop"] == 0.15
    row = table["dual_lora"]["factors"]["mean"]["label_flip"]
    assert row["shared"]["change_by_seed"] == [-0.1, -0.1] and row["clipped"] == 2
    assert "absent" not in table["dual_lora"]["factors"]["median"]


@pytest.mark.slow
def test_a_run_trains_all_sites_limits_a_reversed_change_and_rounds_what_leaves_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sites = {f"site-{n}": {"training": photographs(8, n), "test": photographs(4, 10 + n)} for n in range(5)}
    opened = network("vit_demo", 0)
    kept, training = Kept(opened), Training(epochs=1, learning_rate=0.01, batch_size=4)
    found = {}
    for attack in (NONE, "sign_flip", "absent"):
        plan = plan_of(sites, opened, method="dual_lora", rule="factors", bound=5.0, seed=0, rounds=2)
        found[attack] = run(plan, sites, kept, attack=ATTACKS[attack], malicious=["site-0"], training=training)
        assert all(0 <= found[attack][what][view] <= 1 for what in ("accuracy", "success") for view in ("shared",))
    assert found["sign_flip"]["clipped"] == 2 and found[NONE]["clipped"] == 0
    again = run(plan, sites, kept, attack=ATTACKS["absent"], malicious=["site-0"], training=training)
    assert again == found["absent"]
    calls: list[int] = []

    def seen(payload: Any, *, bits: int, key: bytes) -> Any:
        calls.append(bits)
        return rounded_payload(payload, bits=bits, key=key)

    monkeypatch.setattr(federation, "rounded_payload", seen)
    run(plan, sites, kept, attack=ATTACKS[NONE], malicious=["site-0"], training=training, kept_bits=3)
    assert calls == [3] * 10  # five sites, two rounds
