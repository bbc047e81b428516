from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.phantom.cohort import draw_groups, machines_named, mnms_code, name_seed, share_out
from monai_fedlora.data.phantom.vendors import VENDORS
from monai_fedlora.errors import ConfigError


@given(st.integers(0, 500), st.lists(st.floats(0.01, 10), min_size=1, max_size=6))
def test_shares_add_up_and_are_off_by_less_than_one(total, weights) -> None:
    shares = {str(number): weight for number, weight in enumerate(weights)}
    counts = share_out(total, shares)
    assert sum(counts.values()) == total
    assert all(abs(counts[name] - total * share / sum(weights)) < 1 for name, share in shares.items())


def test_groups_follow_the_vendor_in_an_order_of_their_own() -> None:
    groups = draw_groups(96, VENDORS["A"].shares(), (0,))
    assert Counter(groups)["NOR"] == 22
    assert groups != sorted(groups) and groups == draw_groups(96, VENDORS["A"].shares(), (0,))
    assert groups != draw_groups(96, VENDORS["A"].shares(), (1,))


def test_codes_look_like_those_of_mnms_and_never_repeat() -> None:
    codes = [mnms_code(number, 0) for number in range(3000)]
    assert len(set(codes)) == 3000
    assert all(re.fullmatch(r"([A-Z]\d){3}", code) for code in codes)


@pytest.mark.parametrize("codes", [[], ["A", "A"], ["E"], [""]])
def test_vendors_must_be_known_and_named_once(codes) -> None:
    with pytest.raises(ConfigError, match="vendor"):
        machines_named(VENDORS, codes, word="vendor")


def test_names_have_fixed_seeds() -> None:
    assert name_seed("site-1") == 0xF505DCCD1D9094DB
