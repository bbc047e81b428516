"""By which rule a federation of hospitals averages that names none."""

from __future__ import annotations

from typing import Any

import pytest

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.plan_rule import check_rule, usual_rule
from monai_fedlora.methods import METHODS, get_method

SITES = tuple(f"site-{number}" for number in range(8))


def usual(name: str = "dual_lora", *, sites: int = 5, top_k: float = 1.0, sample: float = 1.0, **settings: Any) -> Any:
    participation = Participation(sample=sample)
    return usual_rule(get_method(name, settings), sites=SITES[:sites], participation=participation, top_k=top_k)


def test_the_median_is_usual_from_five_sites_on_and_the_mean_below() -> None:
    assert [usual(sites=count) for count in (1, 2, 4, 5, 8)] == [{}, {}, {}, *[{"averaging": "median"}] * 2]


@pytest.mark.parametrize("name", METHODS.names())
def test_only_methods_that_leave_the_rule_open_get_one(name: str) -> None:
    has = "averaging" in set(getattr(METHODS[name], "__dataclass_fields__", {}))
    assert bool(usual(name, sites=8)) == has


def test_what_the_median_cannot_compare_or_was_not_measured_on_keeps_the_mean() -> None:
    assert usual(sites=8, top_k=0.5) == {}
    assert usual(sites=8, sample=0.5) == {}  # four are asked
    assert usual(sites=8, sample=0.6) == {"averaging": "median"}  # five are asked
    assert usual("fedprox", sites=8, trains="everything") == {}
    assert usual(sites=8, averaging="product") == {}


def test_a_usual_rule_is_one_that_the_plan_takes() -> None:
    for count in range(1, 9):
        method = get_method("dual_lora", usual(sites=count))
        check_rule(method, sites=count, participation=Participation(), top_k=1.0)


def test_a_rule_that_needs_more_sites_than_there_are_refuses() -> None:
    method = get_method("dual_lora", {"averaging": "multi_krum"})
    check_rule(method, sites=5, participation=Participation(), top_k=1.0)
    with pytest.raises(ConfigError, match=r"needs at least 5 sites .* the plan has 4; choose another, median"):
        check_rule(method, sites=4, participation=Participation(), top_k=1.0)
