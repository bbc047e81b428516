"""Attacks on a site's kept answers become figures by patient, and say what could not be measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_fedlora.auditing import answers
from monai_fedlora.auditing.answers import Candidates, answers_leakage, most_candidates
from monai_fedlora.errors import ExportError
from monai_fedlora.federated.seen_rounds import SeenRound

ASKED = Candidates(
    images=torch.zeros(24, 1),
    labels=torch.arange(24) % 2,
    units=torch.arange(24) // 2,
    member=torch.arange(24) < 12,
)
SEEN = {0: SeenRound({}, {"north": {}}), 1: SeenRound({}, {"south": {}}), 2: SeenRound({}, {"north": {}, "south": {}})}


def told(monkeypatch: pytest.MonkeyPatch, found: dict[str, Tensor]) -> answers.Leakage:
    monkeypatch.setattr(answers, "scores", lambda *_: found)
    return answers_leakage(None, ASKED, SEEN, "north")  # type: ignore[arg-type]


def test_a_score_of_images_is_judged_by_patient_over_the_rounds_that_the_site_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    higher = ASKED.member.double() + torch.arange(24) / 100
    found = told(monkeypatch, {"share": higher, "loss": torch.zeros(24)})
    assert [(one.name, one.auc) for one in found.attacks] == [("share", 1.0), ("loss", 0.5)]
    assert {(one.target, one.n_members, one.n_others) for one in found.attacks} == {("answers of 2 rounds", 6, 6)}


def test_a_control_that_tells_members_is_a_warning_and_no_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, {"share": torch.zeros(24), "share, others alone": ASKED.member.double()})
    assert [one.name for one in found.attacks] == ["share"]
    assert "they differ in more than membership" in found.warnings[0]
    assert not told(monkeypatch, {"share, others alone": torch.zeros(24)}).warnings


def test_a_score_that_is_no_number_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, {"share": torch.full((24,), torch.nan)})
    assert found.not_measured == {"share on answers of 2 rounds": "a score is not finite"}


def test_without_kept_answers_nothing_is_measured_and_the_reason_says_what_to_do() -> None:
    for seen, said in (({}, "--keep-answers"), ({1: SEEN[1]}, "no answer of north was accepted")):
        found = answers_leakage(None, ASKED, seen, "north")  # type: ignore[arg-type]
        assert not found.attacks and said in found.not_measured["answers"]


def test_too_many_candidates_are_drawn_by_half_whatever_their_images_are() -> None:
    some = ASKED.at_most(8)
    assert some.member.tolist() == [True] * 4 + [False] * 4
    assert torch.equal(ASKED.at_most(8).units, some.units)
    assert ASKED.at_most(24) is ASKED
    assert most_candidates(1000) == answers.MOST_NUMBERS // 1000
    with pytest.raises(ExportError, match="at once"):
        most_candidates(answers.MOST_NUMBERS // 9)
