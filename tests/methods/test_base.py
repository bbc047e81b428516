"""Methods by name: near misses are suggested, bad values are named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.methods.base import Method


def test_methods_are_listed_by_name() -> None:
    assert method_names() == sorted(method_names())
    assert {"dual_lora", "fedavg", "fedit", "local"} <= set(method_names())


@pytest.mark.parametrize(("wrong", "right"), [("dual_lorra", "dual_lora"), ("fedavrg", "fedavg"), ("locl", "local")])
def test_a_misspelt_method_is_corrected(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"'{wrong}'; did you mean '{right}'"):
        get_method(wrong)


def test_an_unknown_method_gets_the_list() -> None:
    with pytest.raises(ConfigError, match="choose from dual_lora, fedavg"):
        get_method("xyz")


@pytest.mark.parametrize(
    ("wrong", "right"), [("ranks", "rank"), ("alfa", "alpha"), ("drop_out", "dropout"), ("block", "blocks")]
)
def test_a_misspelt_setting_is_corrected(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"'{wrong}'; did you mean '{right}'"):
        get_method("dual_lora", {wrong: 1})


def test_a_setting_of_another_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="fedavg has no setting 'rank'"):
        get_method("fedavg", {"rank": 8})


@given(st.text(), st.integers())
def test_no_unknown_setting_is_ever_taken(name: str, value: int) -> None:
    with pytest.raises(ConfigError):
        get_method("fedavg", {name: value})


@pytest.mark.parametrize(
    "values",
    [
        {"rank": 0},
        {"rank": "8"},
        {"alpha": 0},
        {"alpha": "16"},
        {"dropout": 1},
        {"blocks": -1},
        {"targets": []},
        {"targets": "attn.q"},
        {"head": "public"},
        {"head": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["dual_lora", "fedit", "local"])
def test_a_bad_value_is_named(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        get_method(name, values)


def test_local_never_shares_its_head() -> None:
    with pytest.raises(ConfigError, match="private"):
        get_method("local", {"head": "shared"})


def test_lists_of_a_plan_file_become_tuples() -> None:
    assert get_method("dual_lora", {"targets": ["attn.q"]}) == get_method("dual_lora", {"targets": ("attn.q",)})


def test_a_method_is_immutable_and_comparable() -> None:
    method: Method = get_method("dual_lora")
    with pytest.raises(AttributeError):
        method.rank = 4  # type: ignore[attr-defined]
    assert method == get_method("dual_lora", {"rank": 8})
    assert method != get_method("dual_lora", {"rank": 4})
    assert hash(method) == hash(get_method("dual_lora"))
