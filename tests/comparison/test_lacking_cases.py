"""Runs without others' test cases, and cases without a score, are named."""

from __future__ import annotations

from dataclasses import replace

from monai_fedlora.comparison.lacking_cases import lacking_cases
from monai_fedlora.comparison.patient_draws import cases_tested
from tests.comparison.test_score_differences import right, scored


def test_where_every_run_tested_the_same_cases_nothing_is_said() -> None:
    assert lacking_cases([*scored("one", right()), *scored("other", right())]) == []


def test_a_run_that_is_left_out_is_named_with_the_site_that_it_lacks() -> None:
    scores = [s for s in scored("one", right()) if s.site == "north" or s.seed == 0]
    assert lacking_cases(scores) == ["one, seed 1 lacks 12 of 24 test cases (south)"]
    assert cases_tested(scores)["one"].runs == [(0, 0)]


def test_repeats_are_named_where_there_are_some() -> None:
    whole = scored("one", right(), seeds=[0])
    again = [replace(each, repeat=1) for each in whole if each.patient != "NOR0"]
    assert lacking_cases([*whole, *again]) == ["one, seed 0, repeat 1 lacks 2 of 24 test cases (north, south)"]


def test_cases_that_a_method_never_tested_and_cases_without_a_score_are_named() -> None:
    one = scored("one", right(), sites=["north"])
    other = scored("other", lambda seed, site, label, patient: None if patient == 0 and site == "south" else 1.0)
    assert lacking_cases([*one, *other]) == [
        "no run of one tested 12 of 24 test cases (south)",
        "other has no score of 2 test cases in some run",
    ]
