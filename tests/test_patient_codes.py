"""Whoever counts patients, and whoever keeps account of them, takes the same codes for the same patient."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.cases import Case
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.patient_codes import plain_code
from monai_fedlora.privacy.patient_pool import Pool

KEY = bytes(32)
CODES = st.text(min_size=1, max_size=4) | st.sampled_from(
    ["P1", "p1", " P1", "É", "e\u0301", "ß", "SS", "\uff30\uff11"]
)


def cases_of(codes: Sequence[str], *, units: bool) -> list[Case]:
    return [
        Case(subject=f"image {number}" if units else code, label=0, group="x", unit=code if units else None, image="x")
        for number, code in enumerate(codes)
    ]


@given(codes=st.lists(CODES, min_size=1, max_size=8), units=st.booleans())
def test_patients_are_told_apart_exactly_where_the_ledger_tells_them_apart(codes: list[str], units: bool) -> None:
    numbers = unit_numbers(cases_of(codes, units=units))
    pools = [Pool.of([code], key=KEY) for code in codes]
    for number, pool in zip(numbers, pools, strict=True):
        for other, theirs in zip(numbers, pools, strict=True):
            assert (number == other) == pool.shares_with(theirs)
    assert len(set(numbers)) == len(Pool.of(codes, key=KEY).marks)


@given(code=CODES)
def test_another_way_of_writing_is_the_same_code(code: str) -> None:
    for other in (f" {code}\t", unicodedata.normalize("NFD", code)):
        assert plain_code(other) == plain_code(code)


@pytest.mark.parametrize(("one", "other"), [("P1", "P2"), ("P1", "P 1"), ("P1", "P-1"), ("a", "b")])
def test_other_codes_are_others(one: str, other: str) -> None:
    assert plain_code(one) != plain_code(other)
