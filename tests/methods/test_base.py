"""Methods by name: near misses are suggested, bad values are named."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import base, get_method, method_names
from monai_fedlora.methods.base import Method
from tests.helpers import make_plan


def test_methods_are_listed_by_name() -> None:
    assert method_names() == sorted(method_names())
    rivals = (
        "local centralised fedavg fedprox fedbn fedper fedrep ditto fedit ffa_lora fedsa_lora feddpa flora flexlora "
        "fedex_lora fedsvd pfedst clip_zero_shot linear_probe clip_adapter prompt_tuning"
    )
    assert set(rivals.split()) <= set(method_names())


@pytest.mark.parametrize(("wrong", "right"), [("dual_lorra", "dual_lora"), ("fedavrg", "fedavg"), ("locl", "local")])
def test_a_misspelt_method_is_corrected(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"'{wrong}'; did you mean '{right}'"):
        get_method(wrong)


def test_an_unknown_method_gets_the_list() -> None:
    with pytest.raises(ConfigError, match="choose from centralised, clip_adapter, clip_zero_shot, ditto"):
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
@pytest.mark.parametrize("name", sorted(set(method_names()) - {"fedavg", "fedbn"}))
def test_a_bad_value_is_named(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        get_method(name, values)


@pytest.mark.parametrize(
    ("name", "setting", "values"),
    [
        ("fedprox", "mu", [-0.1, "0.1", None, float("nan"), float("inf"), True]),
        ("ditto", "mu", [-1, "1", float("nan")]),
        ("ditto", "personal_share", [0, 1, -0.5, 1.5, "half"]),
        ("fedrep", "head_share", [0, 1.0, float("nan"), None]),
        ("feddpa", "private_share", [0.0, 1, True]),
        ("feddpa", "mix", [-0.1, 1.1, "0.5", True, float("nan")]),
        ("ffa_lora", "a_seed", [-1, 0.5, "0", None]),
        ("flora", "a_seed", [-1]),
        ("flora", "ranks", [[0], [9], [2.0], [True], ["2"], 4]),
        ("flexlora", "ranks", [[4, 0], [4, 9], "4"]),
        ("fedprox", "trains", ["all", None]),
        ("fedper", "trains", ["head"]),
        ("pfedst", "width", [-8, 6, 96.0, "96", None]),
        ("pfedst", "heads", [0, -1, 4.0, True, None]),
        ("pfedst", "taps", [[-1], [1, 1], [0.0], [True], ["0"], "01"]),
        ("pfedst", "schedule", ["both", None]),
        ("pfedst", "private_share", [0, 1, True, "half"]),
        ("pfedst", "classifier", ["cosine", None]),
        ("clip_adapter", "form", ["linear", None]),
        ("clip_adapter", "reduction", [0, -4, 2.0, True, "4", None]),
        ("clip_adapter", "ratio", [0, 1, 1.5, "0.2", True, None]),
        ("prompt_tuning", "vectors", [0, -1, 3.0, True, "3", None]),
        ("prompt_tuning", "start", ["zeros", None]),
    ],
)
def test_a_bad_value_of_a_methods_own_setting_is_named(name: str, setting: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=setting):
            get_method(name, {setting: value})


@pytest.mark.parametrize(
    ("name", "settings", "right"),
    [
        ("fedit", {"averaging": "prodct"}, "product"),
        ("dual_lora", {"averaging": "factor"}, "factors"),
        ("fedprox", {"trains": "adapter"}, "adapters"),
        ("fedper", {"trains": "everthing"}, "everything"),
        ("pfedst", {"schedule": "private_last"}, "private_after"),
        ("pfedst", {"classifier": "txt"}, "text"),
    ],
)
def test_a_misspelt_word_is_corrected(name: str, settings: dict[str, str], right: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{right}'"):
        get_method(name, settings)


def test_there_are_no_products_to_average_without_adapters() -> None:
    with pytest.raises(ConfigError, match="product"):
        get_method("fedprox", {"trains": "everything", "averaging": "product"})


@pytest.mark.parametrize(
    "name", ["ffa_lora", "fedsa_lora", "local", "centralised", "flora", "flexlora", "fedex_lora", "fedsvd", "pfedst"]
)
def test_a_method_with_one_way_of_averaging_has_no_setting_for_it(name: str) -> None:
    with pytest.raises(ConfigError, match="no setting 'averaging'"):
        get_method(name, {"averaging": "product"})


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, "private") for name in ("local", "fedper", "fedrep", "fedsa_lora")),
        *((name, "shared") for name in ("ditto", "centralised")),
    ],
)
def test_a_method_with_one_kind_of_head_refuses_the_other(name: str, head: str) -> None:
    assert get_method(name).head == head  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=f"for {name} it is '{head}'"):
        get_method(name, {"head": {"private": "shared", "shared": "private"}[head]})


def test_pooled_training_has_one_site() -> None:
    get_method("centralised").check_sites(1)
    with pytest.raises(ConfigError, match="centralised takes 1 site, not 3"):
        make_plan(method="centralised", sites=("a", "b", "c"))


@pytest.mark.parametrize("name", ["flora", "flexlora"])
def test_there_is_one_rank_per_site(name: str) -> None:
    method = get_method(name, {"ranks": [2, 8, 4]})
    method.check_sites(3)
    assert [method.for_site(index).ranks for index in range(3)] == [(2,), (8,), (4,)]  # type: ignore[attr-defined]
    assert [get_method(name).for_site(index) for index in range(3)] == [get_method(name)] * 3
    with pytest.raises(ConfigError, match="3 entries for 2 sites"):
        make_plan(method=name, method_args={"ranks": [2, 8, 4]}, sites=("a", "b"))


@pytest.mark.parametrize("name", method_names())
def test_a_method_is_at_most_150_lines_with_everything_around_it(name: str) -> None:
    source = inspect.getsource(inspect.getmodule(type(get_method(name))) or base)
    assert len(source.splitlines()) <= 150


def test_lists_of_a_plan_file_become_tuples() -> None:
    assert get_method("dual_lora", {"targets": ["attn.q"]}) == get_method("dual_lora", {"targets": ("attn.q",)})


def test_a_method_is_immutable_and_comparable() -> None:
    method: Method = get_method("dual_lora")
    with pytest.raises(AttributeError):
        method.rank = 4  # type: ignore[attr-defined]
    assert method == get_method("dual_lora", {"rank": 8})
    assert method != get_method("dual_lora", {"rank": 4})
    assert hash(method) == hash(get_method("dual_lora"))
