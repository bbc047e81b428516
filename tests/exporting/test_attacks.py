"""How well a score separates, against scikit-learn, resampling and counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.attacks import Attack, by_patient, judge, rate_at_low_error, roc_area
from tests.helpers import through_json

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


def judged(members: Tensor, others: Tensor, **changes: Any) -> Attack:
    settings = {
        "target": "weights",
        "members": ("training",),
        "member_scores": members,
        "member_units": torch.arange(len(members)),
        "other_scores": others,
        "other_units": torch.arange(len(others)),
    }
    return judge("loss", **{**settings, **changes})


@given(members=SCORES, others=SCORES)
def test_the_area_is_that_of_scikit_learn_with_ties(members: list[float], others: list[float]) -> None:
    found = roc_area(torch.tensor(members).double(), torch.tensor(others).double())
    truth = [1] * len(members) + [0] * len(others)
    assert found == pytest.approx(roc_auc_score(truth, members + others))


@given(members=SCORES, others=st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40))
def test_at_most_the_stated_share_of_others_is_let_through(members: list[float], others: list[float]) -> None:
    first, second = torch.tensor(members).double(), torch.tensor(others).double()
    found, rate = rate_at_low_error(first, second)
    assert rate == 1 / len(others)
    allowed = [limit for limit in {*others, min(others) - 1} if sum(other > limit for other in others) <= 1]
    assert found == sum(member > min(allowed) for member in members)


def test_one_percent_is_let_through_where_three_hundred_others_are() -> None:
    others = torch.arange(300).double()
    assert rate_at_low_error(torch.tensor([296.0, 296.5, 297.5, 400.0]).double(), others) == (3, 0.01)
    assert rate_at_low_error(torch.tensor([296.5, 297.5, 298.5]).double(), others[:299]) == (2, 1 / 299)


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.5])
def test_the_interval_is_about_that_of_resampling(shift: float) -> None:
    generator = np.random.default_rng(3)
    members, others = generator.normal(shift, 1, 60), generator.normal(0, 1, 45)
    found = judged(torch.from_numpy(members), torch.from_numpy(others))
    areas = [
        roc_area(torch.from_numpy(generator.choice(members, 60)), torch.from_numpy(generator.choice(others, 45)))
        for _ in range(1000)
    ]
    assert found.interval_95 == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.04)


def test_a_perfect_attack_keeps_an_interval() -> None:
    found = judged(torch.ones(32), torch.zeros(20))
    assert (found.auc, found.tpr, found.interval_95[1]) == (1.0, 1.0, 1.0)
    assert 0.85 < found.interval_95[0] < 0.95


def test_an_attack_that_is_reliably_wrong_is_turned_round() -> None:
    wrong = judged(torch.zeros(32), torch.ones(20))
    assert (wrong.name, wrong.auc, wrong.tpr) == ("loss, reversed", 1.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    by_chance = judged(torch.randn(30, generator=generator) - 0.2, torch.randn(30, generator=generator))
    assert (by_chance.name, by_chance.auc < 0.5) == ("loss", True)


def test_patients_are_counted_not_images() -> None:
    scores, units = torch.tensor([1.0, 3.0, 10.0, 4.0]), torch.tensor([7, 7, 2, 9])
    assert by_patient(scores, units).tolist() == [10.0, 2.0, 4.0]
    many = judged(torch.rand(600), torch.rand(50), member_units=torch.arange(600) % 6)
    assert (many.n_members, many.n_others) == (6, 50)


@pytest.mark.parametrize(
    ("members", "others", "message"),
    [
        (torch.rand(4), torch.rand(30), "4 members and 30 others"),
        (torch.rand(40), torch.rand(0), "40 members and 0 others"),
        (torch.full((9,), torch.nan), torch.rand(9), "not finite"),
    ],
)
def test_what_cannot_be_judged_is_said(members: Tensor, others: Tensor, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        judged(members, others)


def test_an_attack_survives_json() -> None:
    found = judged(torch.rand(30), torch.rand(20))
    read = Attack.from_json(through_json(found.to_json()))
    assert read.to_json() == found.to_json()
    assert read.auc == pytest.approx(found.auc, abs=1e-3)
