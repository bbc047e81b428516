"""The three states, what is undecided, and in how many digits people are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.clinic.state import (
    CANNOT_TELL,
    DOUBTFUL,
    NO_DOUBT_FOUND,
    contenders,
    is_undecided,
    percent,
    state_of,
    state_sentences,
)

shares = st.lists(st.floats(0.01, 1), min_size=2, max_size=6).map(lambda parts: [part / sum(parts) for part in parts])


@pytest.mark.parametrize(
    ("doubts", "blind", "state", "sentences"),
    [
        ((), (), NO_DOUBT_FOUND, ("No doubt found.",)),
        ((), ("c", "d"), CANNOT_TELL, ("Cannot tell: c.", "Also: d.")),
        (("a", "b"), (), DOUBTFUL, ("Doubtful because a.", "Also because b.")),
        (("a",), ("c",), DOUBTFUL, ("Doubtful because a.",)),
    ],
)
def test_a_doubt_counts_more_than_not_knowing(
    doubts: tuple[str, ...], blind: tuple[str, ...], state: str, sentences: tuple[str, ...]
) -> None:
    assert state_of(doubts, blind) == state
    assert state_sentences(doubts, blind) == sentences


@pytest.mark.parametrize(
    ("probabilities", "answers", "undecided", "between"),
    [
        ((0.43, 0.57), (), False, [1]),
        ((0.46, 0.54), (), True, [1, 0]),
        ((0.43, 0.57), (1, 1), False, [1]),
        ((0.1, 0.9), (1, 0), True, [1, 0]),
        ((0.4, 0.35, 0.25), (), True, [0, 1]),
        ((0.6, 0.3, 0.1), (2,), True, [0, 2]),
        ((1.0,), (), False, [0]),
    ],
)
def test_near_an_even_split_or_with_two_answers_nothing_is_decided(
    probabilities: tuple[float, ...], answers: tuple[int, ...], undecided: bool, between: list[int]
) -> None:
    assert is_undecided(probabilities, answers) == undecided
    assert contenders(probabilities, answers) == between


@given(shares, st.lists(st.integers(0, 1), max_size=4))
def test_what_is_undecided_lies_between_two_classes_and_the_rest_names_one(
    probabilities: list[float], answers: list[int]
) -> None:
    between = contenders(probabilities, answers)
    assert (len(between) > 1) == is_undecided(probabilities, answers)
    assert probabilities[between[0]] == max(probabilities)


@pytest.mark.parametrize(
    ("share", "whole", "tenths"),
    [
        (0.5666, "57 %", "56.7 %"),
        (0.0, "0 %", "0.0 %"),
        (1.0, "100 %", "100.0 %"),
        (0.004, "<1 %", "0.4 %"),
        (0.9968, ">99 %", "99.7 %"),
        (0.0001, "<1 %", "<0.1 %"),
        (0.9999, ">99 %", ">99.9 %"),
    ],
)
def test_percents_are_whole_unless_calibrated_and_never_claim_certainty(share: float, whole: str, tenths: str) -> None:
    assert percent(share, calibrated=False) == whole
    assert percent(share, calibrated=True) == tenths
