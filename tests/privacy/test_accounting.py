"""Epsilon agrees with published values and with the closed form of the Gaussian mechanism."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from monai_fedlora.errors import ConfigError
from monai_fedlora.privacy.accounting import best_guess, epsilon_of, noise_for, rounds_within
from monai_fedlora.privacy.mechanism import Mechanism

DELTA = 1e-5


def steps(noise: float, rate: float, count: int) -> Mechanism:
    return Mechanism(noise_multiplier=noise, sample_rate=rate, steps=count)


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Balle and Wang, ICML 2018, theorem 8: the exact delta of a Gaussian mechanism whose sensitivity is mu sigmas."""
    near, far = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return float(norm.cdf(near) - math.exp(epsilon + norm.logcdf(far)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    return float(brentq(lambda epsilon: gaussian_delta(epsilon, mu) - delta, 0, 200, xtol=1e-9))


@pytest.mark.parametrize(
    ("noise", "rate", "count", "delta"),
    [(0.5, 0.2, 3, 0.15594), (0.67379294682, 0.01, 1, 1e-5), (3.20956502598 / 6, 0.001, 25, 1e-5)],
)
def test_epsilon_is_1_where_googles_published_tests_say_so(noise: float, rate: float, count: int, delta: float) -> None:
    assert epsilon_of([steps(noise, rate, count)], delta=delta) == pytest.approx(1.0, abs=5e-3)


def test_epsilon_is_below_that_of_the_paper_which_composed_moments() -> None:
    """Abadi et al., CCS 2016, section 3.2: q 0.01, sigma 4, 10,000 steps, delta 1e-5 have epsilon 1.26 by moments."""
    assert 0.9 < epsilon_of([steps(4.0, 0.01, 10_000)], delta=DELTA) < 1.26


@pytest.mark.parametrize(("noise", "rate", "epsilon"), [(1.0, 0.1, 1.0), (2.0, 0.3, 0.5), (0.7, 0.5, 2.0)])
def test_epsilon_of_one_step_is_the_closed_form_of_sampling(noise: float, rate: float, epsilon: float) -> None:
    """Balle, Barthe and Gaboardi, NeurIPS 2018, theorem 8."""
    delta = rate * gaussian_delta(math.log1p(math.expm1(epsilon) / rate), 1 / noise)
    assert epsilon_of([steps(noise, rate, 1)], delta=delta) == pytest.approx(epsilon, abs=3e-3)


@pytest.mark.slow
def test_epsilon_of_many_steps_is_what_drawn_privacy_losses_say() -> None:
    """Delta is the mean of max(0, 1 - exp(epsilon - loss)) over runs with the patient (Koskela et al., lemma 5)."""
    noise, rate, count, epsilon = 1.5, 0.2, 40, 2.0
    random = np.random.default_rng(5)
    losses = np.zeros(200_000)
    for _ in range(count):
        seen = noise * random.standard_normal(len(losses)) + (random.random(len(losses)) < rate)
        losses += np.log1p(rate * np.expm1((2 * seen - 1) / (2 * noise**2)))
    delta = np.maximum(0, -np.expm1(epsilon - losses)).mean()
    assert epsilon_of([steps(noise, rate, count)], delta=float(delta)) == pytest.approx(epsilon, abs=0.02)


@pytest.mark.parametrize(("noise", "count"), [(1.0, 1), (5.0, 1), (20.0, 40), (60.0, 1000)])
def test_epsilon_without_sampling_is_the_closed_form_of_a_gaussian(noise: float, count: int) -> None:
    exact = gaussian_epsilon(math.sqrt(count) / noise, DELTA)
    found = epsilon_of([steps(noise, 1.0, count)], delta=DELTA)
    assert exact - 1e-6 <= found <= exact * 1.005 + 1e-3


def test_different_mechanisms_compose_to_one_gaussian() -> None:
    mixed = [steps(6.0, 1.0, 3), steps(10.0, 1.0, 8), steps(6.0, 1.0, 2)]
    exact = gaussian_epsilon(math.sqrt(5 / 36 + 8 / 100), DELTA)
    assert exact - 1e-6 <= epsilon_of(mixed, delta=DELTA) <= exact * 1.005 + 1e-3


def test_two_experiments_spend_less_than_the_sum_of_their_epsilons() -> None:
    each = steps(2.0, 0.1, 200)
    together = epsilon_of([each, each], delta=DELTA)
    assert epsilon_of([each], delta=DELTA) < together < 1.6 * epsilon_of([each], delta=DELTA)
    assert together == epsilon_of([steps(2.0, 0.1, 400)], delta=DELTA)


def test_nothing_spends_nothing() -> None:
    assert epsilon_of([], delta=DELTA) == 0
    assert best_guess([]) == 0.5


@pytest.mark.parametrize(("noise", "count"), [(1.0, 1), (20.0, 40), (10.0, 400)])
def test_the_best_guess_is_that_between_two_gaussians(noise: float, count: int) -> None:
    exact = float(norm.cdf(math.sqrt(count) / noise / 2))
    assert exact - 1e-9 <= best_guess([steps(noise, 1.0, count)]) <= exact + 2e-3


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(noise=st.floats(1.0, 8.0), rate=st.floats(0.01, 0.5), count=st.integers(1, 300), more=st.floats(1.05, 2.0))
def test_more_noise_fewer_steps_and_rarer_sampling_tell_less(
    noise: float, rate: float, count: int, more: float
) -> None:
    epsilon = epsilon_of([steps(noise, rate, count)], delta=DELTA)
    slack = 2e-3
    assert epsilon_of([steps(noise * more, rate, count)], delta=DELTA) <= epsilon + slack
    assert epsilon_of([steps(noise, rate / more, count)], delta=DELTA) <= epsilon + slack
    assert epsilon_of([steps(noise, rate, 2 * count)], delta=DELTA) >= epsilon - slack


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "rate", "count"), [(8.0, 0.16, 120), (1.0, 0.16, 120)])
def test_the_least_noise_stays_within_its_budget_and_a_little_less_does_not(
    epsilon: float, rate: float, count: int
) -> None:
    noise = noise_for(epsilon=epsilon, delta=DELTA, sample_rate=rate, steps=count)
    assert noise == float(f"{noise:.4g}")
    assert epsilon_of([steps(noise, rate, count)], delta=DELTA) <= epsilon
    assert epsilon_of([steps(noise * 0.99, rate, count)], delta=DELTA) > epsilon


def test_the_least_noise_without_sampling_is_the_closed_form() -> None:
    noise = noise_for(epsilon=2.0, delta=DELTA, sample_rate=1.0, steps=25)
    mu = brentq(lambda mu: gaussian_delta(2.0, mu) - DELTA, 1e-3, 10)
    assert math.sqrt(25) / mu <= noise <= math.sqrt(25) / mu * 1.005


@pytest.mark.slow
def test_what_was_spent_asks_for_more_noise() -> None:
    before = steps(2.0, 0.1, 50)
    alone = noise_for(epsilon=3.0, delta=DELTA, sample_rate=0.1, steps=50)
    after = noise_for(epsilon=3.0, delta=DELTA, sample_rate=0.1, steps=50, spent=[before])
    assert after > alone
    assert epsilon_of([before, steps(after, 0.1, 50)], delta=DELTA) <= 3.0


def test_a_spent_budget_has_no_noise() -> None:
    with pytest.raises(ConfigError, match="what was spent leaves nothing of epsilon 1;"):
        noise_for(epsilon=1.0, delta=DELTA, sample_rate=0.1, steps=50, spent=[steps(1.0, 0.5, 50)])


@pytest.mark.slow
def test_as_many_rounds_fit_as_their_epsilon_says() -> None:
    a_round, before = steps(3.0, 0.2, 10), steps(4.0, 0.2, 20)
    rounds = rounds_within(a_round, epsilon=4.0, delta=DELTA, spent=[before])
    assert epsilon_of([before, *[a_round] * rounds], delta=DELTA) <= 4.0
    assert epsilon_of([before, *[a_round] * (rounds + 1)], delta=DELTA) > 4.0


def test_a_round_that_is_too_much_fits_not_once() -> None:
    assert rounds_within(steps(0.8, 0.5, 10), epsilon=0.5, delta=DELTA) == 0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_that_is_no_probability_is_refused(delta: float) -> None:
    with pytest.raises(ConfigError, match="no probability of failure"):
        epsilon_of([steps(1.0, 0.1, 1)], delta=delta)
    with pytest.raises(ConfigError, match="no probability of failure"):
        noise_for(epsilon=1.0, delta=delta, sample_rate=0.1, steps=1)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_that_is_no_budget_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="is no budget"):
        noise_for(epsilon=epsilon, delta=DELTA, sample_rate=0.1, steps=1)
