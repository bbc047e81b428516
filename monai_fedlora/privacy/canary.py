"""What an attack on canaries proves: lower bounds on epsilon, to hold an account of noise against.

A canary is a patient made up so that its presence is easy to see. An attack that tells runs with it from runs without
it, or the canaries of one run that took part from those that did not, shows that epsilon is at least so large. Where
that is more than an account says, the account or the training is wrong; where it is less, nothing is proved.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm

from monai_fedlora.errors import ConfigError

_LARGEST = 100.0


def epsilon_at_least(absent: ArrayLike, present: ArrayLike, *, delta: float, confidence: float = 0.95) -> float:
    """Return a lower bound on epsilon from runs without and with one canary.

    Half of the runs choose where the scores are divided; the other half are counted there (Jagielski et al., NeurIPS
    2020, arXiv 2006.07709), with the limits of Clopper and Pearson. It holds for any training.

    Args:
        absent: (N,) scores of runs without the canary, N at least 4.
        present: (M,) scores of runs with it, which are higher if the attack works, M at least 4.
        delta: in [0, 1).
        confidence: with which the bound holds, in (0, 1).

    Returns:
        At least 0.

    Raises:
        ConfigError: there are too few runs, or a score is not finite.
    """
    false_alarms, misses = _most_errors(absent, present, confidence=confidence)
    ratios = [(1 - delta - misses) / false_alarms, (1 - delta - false_alarms) / misses]
    return max(math.log(max(*ratios, 1.0)), 0.0)


def noise_at_most(absent: ArrayLike, present: ArrayLike, *, confidence: float = 0.95) -> float:
    """Return an upper bound on the noise multiplier of one step that everybody takes part in, from canaries.

    With noise of S times what the canary changes, no attack is better than telling two normal distributions apart whose
    means differ by 1 / S deviations (Dong, Roth and Su, 2022, arXiv 1905.02383; Nasr et al., 2023, arXiv 2302.07956).

    Args:
        absent, present, confidence: see :func:`epsilon_at_least`.

    Returns:
        Above 0; infinite where the attack fails.
    """
    false_alarms, misses = _most_errors(absent, present, confidence=confidence)
    apart = -norm.ppf(false_alarms) - norm.ppf(misses)
    return 1 / float(apart) if apart > 0 else math.inf


def epsilon_of_one_run(*, right: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95) -> float:
    """Return a lower bound on epsilon from one run in which a fair coin decided of each canary whether it took part.

    Steinke, Nasr and Jagielski, NeurIPS 2023, arXiv 2305.08846, theorem 5.2.

    Args:
        right: how many guesses are right.
        guesses: canaries about which something was guessed, in or out.
        canaries: all of them.
        delta: in [0, 1).
        confidence: with which the bound holds, in (0, 1).

    Returns:
        From 0 to 100.

    Raises:
        ConfigError: there are more right ones than guesses, or more of these than canaries.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ConfigError(f"{right} right ones of {guesses} guesses about {canaries} canaries cannot be")

    def doubt(epsilon: float) -> float:
        return _as_right_by_chance(epsilon, right, guesses, canaries, delta) - (1 - confidence)

    if doubt(0.0) >= 0:
        return 0.0
    return float(brentq(doubt, 0.0, _LARGEST)) if doubt(_LARGEST) > 0 else _LARGEST


def _as_right_by_chance(epsilon: float, right: int, guesses: int, canaries: int, delta: float) -> float:
    """Largest probability of so many right guesses where (epsilon, delta)-differential privacy holds."""
    each = 1 / (1 + math.exp(-epsilon))
    beyond = float(binom.sf(right - 1, guesses, each))
    within = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, each))
    slope = float((within / np.arange(1, right + 1)).max(initial=0.0))
    return min(beyond + 2 * canaries * delta * slope, 1.0)


def _most_errors(absent: ArrayLike, present: ArrayLike, *, confidence: float) -> tuple[float, float]:
    """How many false alarms and misses an attack has at most, each with half of what may go wrong."""
    without, within = (np.asarray(scores, dtype=np.float64).ravel() for scores in (absent, present))
    if min(len(without), len(within)) < 4 or not (np.isfinite(without).all() and np.isfinite(within).all()):
        raise ConfigError("it takes four runs at least with and without a canary, and scores that are finite")
    wrong = (1 - confidence) / 2
    places = np.unique(np.concatenate([without[::2], within[::2]]))
    alarms, misses = _limits(without[::2], within[::2], places, wrong)
    best = places[[np.argmax(-norm.ppf(alarms) - norm.ppf(misses))]]
    alarms, misses = _limits(without[1::2], within[1::2], best, wrong)
    return float(alarms[0]), float(misses[0])


def _limits(without: np.ndarray, within: np.ndarray, places: np.ndarray, wrong: float) -> tuple[np.ndarray, np.ndarray]:
    """Upper limits of the shares of false alarms and misses where a score from each place on means the canary."""
    alarms = len(without) - np.searchsorted(np.sort(without), places)
    misses = np.searchsorted(np.sort(within), places)
    return _most(alarms, len(without), wrong), _most(misses, len(within), wrong)


def _most(counts: np.ndarray, of: int, wrong: float) -> np.ndarray:
    """Upper limits of shares (Clopper and Pearson, Biometrika, 1934)."""
    limits = np.ones(len(counts))
    some = counts < of
    limits[some] = beta.ppf(1 - wrong, counts[some] + 1, of - counts[some])
    return limits
