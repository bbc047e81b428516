"""Tracing finds who was in a mean, says nothing of those who were not, and never scores a case with its own help."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.attacks import roc_area
from monai_fedlora.exporting.calibration import fit_temperature
from monai_fedlora.exporting.published_means import (
    FOLDS,
    cross_scored,
    inner_product,
    likelihood_ratio,
    temperature_pull,
)

DIM, MEMBERS, OTHERS = 48, 32, 400


def cases(count: int, seed: int) -> Tensor:
    mixing = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)) @ mixing + 3


@pytest.mark.slow
@pytest.mark.parametrize("published", [True, False])
def test_members_of_a_mean_are_traced_and_members_of_another_are_not(published: bool) -> None:
    areas = []
    for seed in range(1000, 1012):
        members, others = cases(MEMBERS, seed), cases(OTHERS, seed + 2000)
        mean = (members if published else cases(MEMBERS, seed + 4000)).mean(dim=0)
        for score in (partial(inner_product, mean), partial(likelihood_ratio, mean, MEMBERS)):
            areas.append(roc_area(*cross_scored(score, members, others, torch.arange(OTHERS))))
    assert np.mean(areas) == pytest.approx(0.76 if published else 0.5, abs=0.04)


def test_the_likelihood_ratio_is_that_of_normal_cases() -> None:
    generator = torch.Generator().manual_seed(0)
    own, members, new = (torch.randn(count, 8, generator=generator).double() for count in (4000, MEMBERS, 6))
    value = members.mean(dim=0)
    mean, covariance = own.mean(dim=0), torch.cov(own.T)
    outside = multivariate_normal(mean.numpy(), covariance.numpy() / MEMBERS).logpdf(value.numpy())
    expected = []
    for case in new:
        centre = (case + (MEMBERS - 1) * mean) / MEMBERS
        spread = covariance * (MEMBERS - 1) / MEMBERS**2
        expected.append(multivariate_normal(centre.numpy(), spread.numpy()).logpdf(value.numpy()) - outside)
    found = likelihood_ratio(value, MEMBERS, new, own)
    found, wanted = found - found.mean(), torch.tensor(expected) - np.mean(expected)
    torch.testing.assert_close(found * MEMBERS / (MEMBERS - 1), wanted, rtol=0.05, atol=0.05)


def test_nobody_is_scored_with_their_own_images() -> None:
    units = torch.arange(40) // 2
    values = torch.arange(40).double()[:, None]

    def known(new: Tensor, own: Tensor) -> Tensor:
        assert len(own) == 40 - 40 // FOLDS
        mine = torch.isin(units[new[:, 0].long() % 40], units[own[:, 0].long()])
        return mine.double()

    members, others = cross_scored(known, values, values, units)
    assert not others.any()
    assert members.shape == (40,)


@pytest.mark.slow
def test_cases_that_pull_the_temperature_are_told_more_often_than_not() -> None:
    areas = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        logits = 4 * torch.randn(220, 3, generator=generator)
        labels = torch.multinomial((logits / 2).softmax(dim=1), 1, generator=generator)
        members = torch.cat([logits, labels], dim=1)[:20]
        others = torch.cat([logits, labels], dim=1)[20:]
        temperature = fit_temperature(members[:, :-1], members[:, -1])
        scores = cross_scored(partial(temperature_pull, temperature), members, others, torch.arange(200))
        areas.append(roc_area(*scores))
    assert np.mean(areas) > 0.5 + 2 * np.std(areas) / len(areas) ** 0.5


@pytest.mark.parametrize("count", [0, 4, 11])
def test_an_attacker_without_cases_is_none(count: int) -> None:
    with pytest.raises(ExportError, match="too few"):
        cross_scored(partial(inner_product, torch.zeros(DIM)), cases(9, 0), cases(count, 1), torch.arange(count))
