from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monai_fedlora.privacy.randomness import Randomness


def test_two_sites_never_draw_the_same() -> None:
    one, other = Randomness(), Randomness()
    assert one.secret
    assert not np.array_equal(one.normal(64), other.normal(64))
    assert not np.array_equal(one.normal(64), one.normal(64))


def test_no_seed_of_another_generator_changes_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("os.urandom", lambda count: asked.append(count) or bytes(count))
    assert np.array_equal(Randomness().drawn(5, rate=0.5), np.arange(5))
    assert asked == [40]


def test_a_seed_repeats_and_says_so() -> None:
    one, other = Randomness.seeded(3), Randomness.seeded(3)
    assert not one.secret
    assert np.array_equal(one.normal(65), other.normal(65))
    assert not np.array_equal(one.normal(65), Randomness.seeded(4).normal(65))


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_as_many_numbers_come_as_were_asked_for(count: int) -> None:
    assert Randomness().normal(count).shape == (count,)


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    found = Randomness.seeded(0).normal(100_000)
    assert stats.kstest(found, "norm").pvalue > 0.01
    half = len(found) // 2
    assert abs(np.corrcoef(found[:half], found[half:])[0, 1]) < 4 / np.sqrt(half)
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 4 / np.sqrt(len(found))


def test_noise_is_finite_for_every_byte() -> None:
    for byte in (b"\x00", b"\xff"):
        extreme = Randomness()
        extreme._bytes = lambda count, byte=byte: byte * count
        assert np.isfinite(extreme.normal(4)).all()


def test_patients_are_drawn_apart_with_the_same_probability() -> None:
    """Numbers of draws are binomial, of each patient and of each step."""
    randomness = Randomness.seeded(0)
    steps = np.zeros((4000, 20))
    for step in steps:
        step[randomness.drawn(20, rate=0.3)] = 1
    of_steps = np.bincount(steps.sum(1).astype(int), minlength=21)
    expected = stats.binom.pmf(np.arange(21), 20, 0.3) * len(steps)
    kept = expected > 5
    rest = [of_steps[~kept].sum()], [expected[~kept].sum()]
    test = stats.chisquare(np.append(of_steps[kept], rest[0]), np.append(expected[kept], rest[1]))
    assert test.pvalue > 0.01
    assert np.abs(steps.mean(0) - 0.3).max() < 4 * np.sqrt(0.21 / len(steps))
    assert np.abs(np.corrcoef(steps.T)[np.triu_indices(20, 1)]).max() < 5 / np.sqrt(len(steps))


@pytest.mark.parametrize(("rate", "count"), [(0, 0), (1, 50)])
def test_rates_of_zero_and_one_are_exact(rate: float, count: int) -> None:
    assert len(Randomness().drawn(50, rate=rate)) == count
