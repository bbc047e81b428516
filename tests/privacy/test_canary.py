"""Lower bounds from canaries hold where the noise is right, and find out noise that is too little."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom, norm
from torch import Tensor

from monai_fedlora.errors import ConfigError
from monai_fedlora.privacy.accounting import epsilon_of
from monai_fedlora.privacy.canary import epsilon_at_least, epsilon_of_one_run, noise_at_most
from monai_fedlora.privacy.clipping import clipped_sum, noised_mean
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.randomness import Randomness

CLIP, RUNS = 0.7, 1500
Sum = Callable[[Mapping[str, Tensor], float], tuple[dict[str, Tensor], int]]


def canary_runs(noise: float, summed: Sum = clipped_sum, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What a step says along a canary's gradient, ten times the limit, without and with it among eight patients."""
    random = Randomness.seeded(seed)
    patients = torch.from_numpy(np.random.default_rng(seed).standard_normal((8, 5)))
    canary = torch.zeros(1, 5, dtype=torch.float64)
    canary[0, 0] = 10 * CLIP
    scores = []
    for batch in (patients, torch.cat([patients, canary])):
        sums, _ = summed({"a": batch}, CLIP)
        told = [
            noised_mean(sums, clip=CLIP, noise_multiplier=noise, expected=4.0, randomness=random)["a"][0]
            for _ in range(RUNS)
        ]
        scores.append(torch.stack(told).numpy())
    return scores[0], scores[1]


def not_clipped(gradients: Mapping[str, Tensor], clip: float) -> tuple[dict[str, Tensor], int]:
    return {name: part.sum(0) for name, part in gradients.items()}, 0


@pytest.mark.parametrize(("noise", "loose"), [(0.5, 1.5), (1.0, 1.5), (2.0, 3.0)])
def test_a_step_has_the_noise_that_it_says_and_its_epsilon(noise: float, loose: float) -> None:
    absent, present = canary_runs(noise)
    assert noise < noise_at_most(absent, present) < loose * noise
    told = epsilon_at_least(absent, present, delta=1e-5)
    assert 0 < told < epsilon_of([Mechanism(noise_multiplier=noise, sample_rate=1.0, steps=1)], delta=1e-5)


@pytest.mark.parametrize(
    ("noise", "summed"), [(0.5, clipped_sum), (1.0, not_clipped)], ids=["half the noise", "no clipping"]
)
def test_a_mutant_is_found_out(noise: float, summed: Sum) -> None:
    assert noise_at_most(*canary_runs(noise, summed), confidence=0.9999) < 1.0


def test_no_clipping_has_a_larger_epsilon_than_its_account_says() -> None:
    mechanism = Mechanism(noise_multiplier=2.0, sample_rate=1.0, steps=1)
    absent, present = canary_runs(2.0, not_clipped)
    assert epsilon_at_least(absent, present, delta=1e-5) > epsilon_of([mechanism], delta=1e-5)


def test_an_attack_that_never_errs_proves_what_its_runs_can() -> None:
    absent, present = np.zeros(200), np.ones(200)
    most = beta.ppf(1 - 0.025, 1, 100)
    assert most == pytest.approx(1 - 0.025 ** (1 / 100))
    assert epsilon_at_least(absent, present, delta=0.0) == pytest.approx(math.log((1 - most) / most))
    assert noise_at_most(absent, present) == pytest.approx(1 / (-2 * norm.ppf(most)))


def test_an_attack_that_fails_proves_nothing() -> None:
    scores = np.random.default_rng(3).standard_normal(400)
    assert epsilon_at_least(scores, scores, delta=1e-5) == 0
    assert noise_at_most(scores, scores) == math.inf
    assert noise_at_most(scores + 3, scores) == math.inf


def test_the_bound_holds_as_often_as_it_says() -> None:
    """Fair coins, 300 times: a bound above the truth in no more than one of twenty, within chance."""
    random, wrong = np.random.default_rng(4), 0
    for _ in range(300):
        absent, present = random.standard_normal(60), random.standard_normal(60) + 1.0
        wrong += noise_at_most(absent, present) < 1.0
    assert wrong <= binom.ppf(0.999, 300, 0.05)


@pytest.mark.parametrize(("right", "guesses"), [(60, 100), (95, 100), (30, 30)])
def test_one_run_without_delta_is_the_closed_form_of_a_coin(right: int, guesses: int) -> None:
    """Right guesses are binomial with e^epsilon / (1 + e^epsilon) at most, whose lower limit is Clopper's."""
    share = float(beta.ppf(0.05, right, guesses - right + 1))
    expected = max(math.log(share / (1 - share)), 0.0)
    found = epsilon_of_one_run(right=right, guesses=guesses, canaries=1000, delta=0.0)
    assert found == pytest.approx(expected, abs=1e-6)


def test_delta_and_more_canaries_take_something_off_what_one_run_proves() -> None:
    def told(delta: float, canaries: int = 1000) -> float:
        return epsilon_of_one_run(right=95, guesses=100, canaries=canaries, delta=delta)

    assert told(0.0) > told(1e-5) > told(1e-4) > 0
    assert told(1e-5) > told(1e-5, canaries=5000)
    assert epsilon_of_one_run(right=50, guesses=100, canaries=100, delta=0.0) == 0
    assert epsilon_of_one_run(right=0, guesses=0, canaries=10, delta=1e-5) == 0


@pytest.mark.parametrize(("right", "guesses", "canaries"), [(5, 4, 10), (4, 11, 10), (-1, 4, 10)])
def test_guesses_that_cannot_be_are_refused(right: int, guesses: int, canaries: int) -> None:
    with pytest.raises(ConfigError, match="cannot be"):
        epsilon_of_one_run(right=right, guesses=guesses, canaries=canaries, delta=1e-5)


@pytest.mark.parametrize("scores", [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0, math.nan]])
def test_too_few_runs_and_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(ConfigError, match="four runs at least"):
        epsilon_at_least(scores, [0.0, 1.0, 2.0, 3.0], delta=1e-5)
