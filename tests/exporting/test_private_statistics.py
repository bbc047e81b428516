"""Noise that is as large as it is said to be, and no larger."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monai_fedlora.exporting import private_statistics
from monai_fedlora.exporting.private_statistics import Budget, epsilon, private_mean, private_quantile

RADIUS, SPREAD = 20.0, 3.0


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patients(n: int = 50, k: int = 4, *, seed: int = 0, at: float = 0.0) -> Tensor:
    return torch.randn(n, k, generator=noise(seed), dtype=torch.float64) + at


def test_epsilon_is_that_of_bun_and_steinke() -> None:
    assert Budget().rho == pytest.approx(1.0)
    assert epsilon(1.0, 1e-5) == pytest.approx(1 + 2 * math.sqrt(math.log(1e5)))
    assert epsilon(0.5, 1e-6) < epsilon(0.5, 1e-9) < epsilon(2.0, 1e-9)


def test_without_noise_it_is_the_mean_of_patients_within_the_ball() -> None:
    values = patients(at=5.0)
    found, deviation = private_mean(values, radius=RADIUS, spread=SPREAD, rho=1e14, generator=noise())
    torch.testing.assert_close(found, values.mean(dim=0), rtol=1e-5, atol=1e-5)
    assert deviation < 1e-5


def test_the_mean_is_unbiased_with_the_stated_deviation() -> None:
    values = patients(at=5.0)
    draws = [private_mean(values, radius=RADIUS, spread=SPREAD, rho=1.0, generator=noise(seed)) for seed in range(400)]
    found = torch.stack([mean for mean, _ in draws])
    deviation = draws[0][1]
    assert float((found.mean(dim=0) - values.mean(dim=0)).abs().max()) < 5 * deviation / math.sqrt(400)
    assert float(found.std(dim=0).mean()) == pytest.approx(deviation, rel=0.1)


@given(
    n=st.integers(2, 60),
    k=st.integers(1, 8),
    size=st.floats(0, 1e6),
    replaced=st.floats(-1e6, 1e6),
    seed=st.integers(0, 99),
)
def test_one_patient_moves_each_step_by_no_more_than_its_noise_is_made_for(
    n: int, k: int, size: float, replaced: float, seed: int
) -> None:
    """The two steps of the mean, taken apart: whatever is replaced, the clipped mean moves by at most 2 reach / n, and
    the noise is the reach's, for all of the budget together no more than rho.
    """
    values = patients(n, k, seed=seed) * size
    other = values.clone()
    other[0] = replaced
    steps: list[tuple[float, float]] = []
    centre, reach, spent = torch.zeros(k, dtype=torch.float64), RADIUS, 0.0
    for share in private_statistics._STEPS:
        means = []
        for group in (values, other):
            offsets = group - centre
            means.append((offsets * (reach / offsets.norm(dim=1, keepdim=True).clamp(min=reach))).mean(dim=0))
        moved = float((means[0] - means[1]).norm())
        assert moved <= 2 * reach / n * (1 + 1e-9)
        deviation = 2 * reach / n / math.sqrt(2 * share)
        spent += (2 * reach / n) ** 2 / (2 * deviation**2)
        steps.append((reach, deviation))
        centre = centre + means[0]
        reach = min(reach, 1.2 * math.sqrt(k) * deviation + 2 * SPREAD)
    assert spent == pytest.approx(1.0)
    _, stated = private_mean(values, radius=RADIUS, spread=SPREAD, rho=1.0, generator=noise())
    assert stated == pytest.approx(steps[-1][1])


def quantile(values: Tensor, *, rho: float = 1.0, share: float = 0.75, seed: int = 0) -> float:
    return private_quantile(values, share=share, lowest=0.1, highest=100.0, rho=rho, generator=noise(seed))


@given(
    values=st.lists(st.floats(0, 1e9), min_size=1, max_size=60),
    share=st.floats(0.05, 0.95),
    rho=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_the_quantile_stays_within_its_range(values: list[float], share: float, rho: float, seed: int) -> None:
    found = quantile(torch.tensor(values), share=share, rho=rho, seed=seed)
    assert 0.1 * (1 - 1e-9) <= found <= 100.0 * (1 + 1e-9)


def test_with_much_budget_the_quantile_is_that_of_the_sample() -> None:
    values = torch.linspace(1, 10, 101)
    found = [quantile(values, rho=1e6, seed=seed) for seed in range(20)]
    assert max(abs(each - 7.75) for each in found) < 0.2


@pytest.mark.slow
def test_the_choice_follows_the_exponential_mechanism() -> None:
    """Against its definition: the share of draws that fall between each two values."""
    values, rho, share = torch.tensor([1.0, 2.0, 5.0, 20.0]), 0.1, 0.75
    edges = [0.1, 1.0, 2.0, 5.0, 20.0, 100.0]
    weights = [
        math.log(edges[i + 1] / edges[i]) * math.exp(-math.sqrt(8 * rho) / 2 * abs(i - share * 4)) for i in range(5)
    ]
    draws = torch.tensor([quantile(values, rho=rho, share=share, seed=seed) for seed in range(4000)])
    counts = torch.histogram(draws, bins=torch.tensor(edges)).hist / 4000
    expected = torch.tensor(weights) / sum(weights)
    assert float((counts - expected).abs().max()) < 0.03


@given(
    values=st.lists(st.floats(0.2, 90.0), min_size=2, max_size=12, unique=True),
    replaced=st.floats(0.2, 90.0),
    rho=st.floats(1e-2, 1.0),
)
def test_one_patient_changes_no_density_beyond_epsilon(values: list[float], replaced: float, rho: float) -> None:
    """Differential privacy by its definition: the density at any place changes by at most the factor e^epsilon."""
    allowed = math.sqrt(8 * rho)

    def density(group: list[float]) -> Tensor:
        places = torch.logspace(-0.99, 1.99, 300, dtype=torch.float64)
        inner = torch.tensor(group, dtype=torch.float64).sort().values
        edges = torch.cat([inner.new_tensor([0.1]), inner, inner.new_tensor([100.0])]).log()
        ranks = torch.arange(len(group) + 1, dtype=torch.float64)
        scores = -allowed / 2 * (ranks - 0.75 * len(group)).abs()
        total = float((edges.diff() * scores.exp()).sum())
        return scores[torch.searchsorted(inner, places)].exp() / total

    ratio = (density(values) / density([replaced, *values[1:]])).log().abs()
    assert float(ratio.max()) <= allowed * (1 + 1e-9)
