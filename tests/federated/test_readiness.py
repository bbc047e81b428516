"""What a site says before anybody trains is exactly what is declared, and no word of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.installation import PACKAGES, installed_versions
from monai_fedlora.federated.readiness import FEWEST_CASES, Readiness, told_cases, told_megabytes
from monai_fedlora.federated.reasons import REASONS
from monai_fedlora.measures.agreement import FEWEST_PATIENTS

SAID: dict[str, Any] = {
    "codes": ["DISK_FULL"],
    "versions": {"torch": "2.13.0"},
    "bundle": "0123abcd",
    "free_mb": 1200,
    "needed_mb": 35,
}
FIELDS = {*SAID, "cases"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
nearly = st.dictionaries(
    st.sampled_from(sorted(FIELDS)),
    st.sampled_from([*SAID.values(), [], ["BUSY", "DISK_FULL"], 12, 5]) | json_values,
)


@given(nearly | st.dictionaries(st.text(), json_values))
def test_what_passes_holds_declared_fields_alone_and_no_text_of_the_sites(value: dict[str, Any]) -> None:
    try:
        said = Readiness.parse(value).to_json()
    except PrivacyError:
        return
    assert set(said) <= FIELDS
    assert set(said["codes"]) <= REASONS.keys()
    assert set(said["versions"]) <= set(PACKAGES)
    assert all(re.fullmatch(r"[0-9a-z.]{1,50}", version) for version in said["versions"].values())
    assert "bundle" not in said or re.fullmatch("[0-9a-f]{8}", said["bundle"])
    assert all(type(said.get(name, 0)) is int for name in ("cases", "free_mb", "needed_mb"))
    assert said.get("cases", FEWEST_CASES) >= FEWEST_CASES
    assert Readiness.parse(said).to_json() == said


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/ward"},
        {"codes": ["patient007"]},
        {"codes": ["DISK_FULL", "BUSY"]},
        {"codes": ["BUSY", "BUSY"]},
        {"codes": "BUSY"},
        {"versions": {"torch": "patient007"}},
        {"versions": {"ward": "1.0"}},
        {"bundle": "patient0"},
        {"cases": 30},
        {"codes": [], "cases": 4},
        {"codes": [], "cases": True},
        {"free_mb": 1234},
        {"free_mb": 12.0},
        {"needed_mb": -1},
        {"needed_mb": None},
    ],
)
def test_anything_else_is_refused_as_a_whole(changes: dict[str, Any]) -> None:
    Readiness.parse(SAID)
    with pytest.raises(PrivacyError):
        Readiness.parse({**SAID, **changes})
    for value in ([SAID], {}):
        with pytest.raises(PrivacyError):
            Readiness.parse(value)


def test_the_same_is_said_in_one_order() -> None:
    said = Readiness(codes=("BUSY",), versions=dict(reversed(installed_versions().items())), free_mb=10)
    assert list(said.to_json()) == ["codes", "versions", "free_mb"]
    assert list(said.to_json()["versions"]) == sorted(PACKAGES)


def test_few_cases_are_not_counted_out_loud() -> None:
    assert (told_cases(4), told_cases(5)) == (None, 5)
    assert FEWEST_CASES == FEWEST_PATIENTS


@given(st.integers(0, 10**15))
def test_megabytes_are_rounded_up_to_two_digits(nbytes: int) -> None:
    said = told_megabytes(nbytes)
    assert len(str(said).rstrip("0")) <= 2
    assert nbytes <= said * 1e6 <= max(1.1 * nbytes + 1e6, 1e6) or said == 10**9
