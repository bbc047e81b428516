"""Which sites a round asks, for how long, and when it counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.plan import Plan
from tests.helpers import make_plan

SITES = ("a", "b", "c", "d", "e")


def test_without_settings_a_round_waits_for_all_and_counts_with_one() -> None:
    usual = Participation()
    assert usual.to_json() == {}
    assert usual.begins_with(SITES) == 5
    assert usual.asked(SITES, seed=0, number=0, attempt=0) == SITES
    assert usual.seconds() == usual.seconds(first=True) == usual.seconds(final=True) == 0
    assert usual.lacks(["c"]) == ""
    assert usual.lacks([]) == "0 answers counted, of at least 1"


def test_too_few_answers_or_none_of_a_required_site_do_not_count() -> None:
    some = Participation(min_sites=3, required_sites=("b",))
    assert some.begins_with(SITES) == 3
    assert some.lacks(["a", "b", "c"]) == ""
    assert some.lacks(["b", "c"]) == "2 answers counted, of at least 3"
    assert some.lacks(["a", "c", "d", "e"]) == "no answer of b counted, without which no round does"


def test_the_first_round_and_the_end_have_longer() -> None:
    assert Participation(round_timeout=6).seconds() == 6
    assert (
        Participation(round_timeout=6).seconds(first=True) == Participation(round_timeout=6).seconds(final=True) == 60
    )
    own = Participation(round_timeout=6, first_round_timeout=9, final_timeout=7)
    assert (own.seconds(first=True), own.seconds(final=True)) == (9, 7)


@given(
    sample=st.floats(0, 1, exclude_min=True),
    least=st.integers(1, 5),
    required=st.sets(st.sampled_from(SITES)),
    number=st.integers(0, 9),
    attempt=st.integers(0, 2),
)
def test_a_draw_has_the_required_sites_and_never_too_few(
    sample: float, least: int, required: set[str], number: int, attempt: int
) -> None:
    chosen = Participation(min_sites=least, required_sites=tuple(sorted(required)), sample=sample)
    asked = chosen.asked(SITES, seed=3, number=number, attempt=attempt)
    assert required <= set(asked) and least <= len(asked) <= 5
    assert len(asked) >= sample * 5 - 1e-6
    assert list(asked) == sorted(asked)
    assert asked == chosen.asked(SITES, seed=3, number=number, attempt=attempt)


def test_over_rounds_and_attempts_a_draw_asks_everybody() -> None:
    half = Participation(sample=0.4)
    draws = [half.asked(SITES, seed=3, number=0, attempt=attempt) for attempt in range(20)]
    assert {len(draw) for draw in draws} == {2}
    assert {site for draw in draws for site in draw} == set(SITES)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_sites": 0}, "min_sites is 0"),
        ({"min_sites": True}, "min_sites is True"),
        ({"round_timeout": 1.5}, "round_timeout is 1.5"),
        ({"sample": 0}, "sample is 0"),
        ({"sample": 2.0}, "sample is 2.0"),
        ({"required_sites": "north"}, "required_sites is 'north'"),
        ({"min_sites": 3}, "there are 2 sites"),
        ({"required_sites": ["west"]}, "names west, which is not among the sites"),
        ({"least": 3}, "unknown entries in participation: least"),
        ([], "must be a JSON object"),
    ],
)
def test_what_no_round_can_fulfil_is_no_plan(settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Plan.from_json({**make_plan().to_json(), "participation": settings})


def test_a_plan_keeps_it_in_its_file_and_its_fingerprint_does_not_know_it() -> None:
    plan = make_plan(participation=Participation(min_sites=1, required_sites=("north",), round_timeout=60, sample=0.5))
    assert Plan.from_json(plan.to_json()) == plan
    assert "participation" not in make_plan().to_json()
    assert plan.fingerprint == make_plan().fingerprint


def test_a_resumed_run_may_have_no_round_left_and_a_new_one_may_not() -> None:
    assert make_plan(rounds=0, start_round=2).total_epochs == 2
    with pytest.raises(ConfigError, match="rounds is 0"):
        make_plan(rounds=0)
