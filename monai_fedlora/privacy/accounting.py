"""What noisy training tells about one patient: epsilon of differential privacy, composed over everything that was sent.

A step adds Gaussian noise to a sum of clipped gradients in which each patient takes part with the same probability,
independently of all others (Abadi et al., CCS 2016, arXiv 1607.00133). Two data sets are neighbours if one of them has
one patient more. Epsilon comes from privacy loss distributions (Koskela et al., AISTATS 2020, arXiv 1906.03049;
Doroshenko et al., PoPETs 2022), as ``dp-accounting`` composes them: rounded so that the true epsilon is never larger.
Mechanisms compose, epsilons do not add up: two runs of epsilon 4 spend less than 8 together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.privacy.mechanism import Mechanism

_COARSEST = 1e-3  # ours: steps of privacy loss, which cost at most half a per cent of epsilon and seconds where finer
_CELLS = 100_000  # ours: steps of privacy loss between zero and a bound on epsilon, at most
_CLOSE = 1.002  # ours: how much more noise than the least there may be
_MOST_ROUNDS = 100_000  # ours: what nobody trains
_DIGITS = 4  # of a noise multiplier, which people copy


def epsilon_of(mechanisms: Iterable[Mechanism], *, delta: float) -> float:
    """Return the epsilon of (epsilon, delta)-differential privacy of all mechanisms together, for one patient.

    Args:
        mechanisms: in any order; each was chosen without looking at patients, or from what earlier ones said.
        delta: in (0, 1).

    Returns:
        An upper bound that is close to the least; 0 for no mechanism.

    Raises:
        ConfigError: the delta is out of range, or ``dp-accounting`` is not installed.
    """
    _check_delta(delta)
    return float(accountant.get_epsilon(delta)) if (accountant := _composed(mechanisms, delta)) else 0.0


def best_guess(mechanisms: Iterable[Mechanism]) -> float:
    """Return how often it can be guessed at best whether a patient took part, where a coin decides that they do.

    Args:
        mechanisms: whose answers the guesser has, knowing everything about everybody else.

    Returns:
        A bound from 0.5, a coin's, to 1: half of one plus the delta at epsilon 0.
    """
    accountant = _composed(mechanisms, 1e-5)
    return 0.5 + float(accountant.get_delta(0.0)) / 2 if accountant else 0.5


def _composed(mechanisms: Iterable[Mechanism], delta: float) -> Any:
    steps: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        steps[mechanism.noise_multiplier, mechanism.sample_rate] += mechanism.steps
    if not steps:
        return None
    accounting = _library()
    accountant = accounting.pld.PLDAccountant(
        accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=max(_COARSEST, _without_sampling(steps, delta) / _CELLS),
    )
    for (noise, rate), count in sorted(steps.items()):
        gaussian = accounting.GaussianDpEvent(noise)
        accountant.compose(gaussian if rate == 1 else accounting.PoissonSampledDpEvent(rate, gaussian), count)
    return accountant


def noise_for(
    *, epsilon: float, delta: float, sample_rate: float, steps: int, spent: Sequence[Mechanism] = ()
) -> float:
    """Return the least noise multiplier with which so many steps stay within a budget.

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        sample_rate: probability with which each patient is in a step, in (0, 1].
        steps: at least 1.
        spent: what the same patients have been in before.

    Returns:
        Four significant digits, rounded up, at most a fifth of a per cent (ours) above the least.

    Raises:
        ConfigError: a number is out of range, what was spent leaves nothing, or ``dp-accounting`` is not installed.
    """
    _check_delta(delta)
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"epsilon {epsilon} is no budget; give a number above 0, usually from 1 to 10")

    def fits(noise: float) -> bool:
        mechanism = Mechanism(noise_multiplier=noise, sample_rate=sample_rate, steps=steps)
        return epsilon_of([*spent, mechanism], delta=delta) <= epsilon

    if spent and epsilon_of(spent, delta=delta) >= epsilon:
        raise ConfigError(f"what was spent leaves nothing of epsilon {epsilon:g}; no noise is enough")
    enough = math.sqrt(steps / (2 * _concentrated(epsilon, delta)))
    for _ in range(60):
        if fits(enough):
            break
        enough *= 2
    else:
        raise ConfigError(f"what was spent leaves next to nothing of epsilon {epsilon:g}; no usual noise is enough")
    short = enough / 2
    while fits(short):
        enough, short = short, short / 2
    while enough > short * _CLOSE:
        middle = math.sqrt(enough * short)
        enough, short = (middle, short) if fits(middle) else (enough, middle)
    return _rounded_up(enough)


def rounds_within(round_of: Mechanism, *, epsilon: float, delta: float, spent: Sequence[Mechanism] = ()) -> int:
    """Return how many more rounds of the same mechanism a budget has room for; 100,000 (ours) at most.

    Args:
        round_of: one round.
        epsilon: the budget, above 0.
        delta: in (0, 1).
        spent: what the same patients have been in before.
    """

    def fits(rounds: int) -> bool:
        whole = Mechanism(
            noise_multiplier=round_of.noise_multiplier,
            sample_rate=round_of.sample_rate,
            steps=round_of.steps * rounds,
        )
        return epsilon_of([*spent, whole], delta=delta) <= epsilon

    most, over = 0, 1
    while over <= _MOST_ROUNDS and fits(over):
        most, over = over, over * 2
    while over - most > 1:
        middle = (most + over) // 2
        most, over = (middle, over) if middle <= _MOST_ROUNDS and fits(middle) else (most, middle)
    return most


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(f"delta {delta} is no probability of failure; give one far below one over the patients")


def _without_sampling(steps: Counter[tuple[float, float]], delta: float) -> float:
    """A bound on epsilon in which everybody takes part in every step (Bun and Steinke, TCC 2016, proposition 1.3)."""
    rho = sum(count / (2 * noise**2) for (noise, _), count in steps.items())
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def _concentrated(epsilon: float, delta: float) -> float:
    """The rho of zero-concentrated differential privacy whose bound at ``delta`` is ``epsilon``."""
    tail = math.log(1 / delta)
    return (math.sqrt(tail + epsilon) - math.sqrt(tail)) ** 2


def _rounded_up(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    rounded = float(f"{math.ceil(value / unit) * unit:.{_DIGITS}g}")
    return rounded if rounded >= value else float(f"{rounded + unit:.{_DIGITS}g}")


def _library() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError as error:
        raise ConfigError(
            "accounting for differential privacy needs a further package: pip install 'monai-fedlora[privacy]'"
        ) from error
    return dp_accounting
