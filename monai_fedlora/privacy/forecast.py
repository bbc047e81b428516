"""What rounds, patients and epsilon mean for a site, before it joins anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_fedlora.errors import ConfigError
from monai_fedlora.privacy.accounting import best_guess, epsilon_of, noise_for, rounds_within
from monai_fedlora.privacy.budget import Budget
from monai_fedlora.privacy.ledger import FOLDER, Ledger
from monai_fedlora.privacy.mechanism import Mechanism, sampling_of_round

_ROWS = 8  # ours: rounds of which epsilon is said
_LOUD = 0.05  # ours: noise on one number of a step's mean gradient, where the longest gradient of a patient is 1
_DENSE = 0.25  # ours: share of the patients in a step, above which drawing them at random helps little


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a ledger says of one pool of patients.

    Attributes:
        pool: name of the pool.
        codes: of patients and images in it.
        answers: that were charged to any of them.
        experiments: which those were of, sorted.
        epsilon: spent, at the delta that was asked for.
        mechanisms: of the answers.
    """

    pool: str
    codes: int
    answers: int
    experiments: tuple[str, ...]
    epsilon: float
    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """An experiment as it would be.

    Attributes:
        a_round: what one round is.
        least: whether the noise is the least for the budget.
        after: epsilon after so many rounds, with what was spent before, for some of them and always for the last.
        spare: epsilon after all rounds and those to spare; None where there are none.
        further: rounds that the budget would have room for after these, with the same noise.
        guess: how often somebody who knows everything about everybody else guesses right whether a patient took part,
            at best, from what is sent in all rounds and in those to spare; 0.5 is a coin.
        warnings: what to think of first.
    """

    a_round: Mechanism
    least: bool
    after: tuple[tuple[int, float], ...]
    spare: float | None
    further: int
    guess: float
    warnings: tuple[str, ...]


def as_budget(given: Mapping[str, float] | None) -> Budget:
    """Return a budget that somebody typed.

    Raises:
        ConfigError: there is none, or a number is out of range.
    """
    try:
        budget = Budget.from_json(given)
    except ValueError as error:
        raise ConfigError(f"--budget must not be this, but {error}") from None
    if budget is None:
        raise ConfigError("without a budget there is nothing to calculate; give one, such as 8,1e-5")
    return budget


def read_spent(private_root: Path, *, delta: float) -> list[Spent]:
    """What a site's ledger says, the pool that has spent most first; nothing where there is no ledger.

    Raises:
        PrivacyError: the ledger was edited or cannot be read.
        ConfigError: there is no such folder.
    """
    if not private_root.is_dir():
        raise ConfigError(f"{private_root} is no folder; give the site's private folder, MONAI_FEDLORA_PRIVATE_DIR")
    if not (private_root / FOLDER).is_dir():
        return []
    found = []
    with Ledger.of_site(private_root).opened() as opened:
        for pool in dict.fromkeys(pool for pool, _ in opened.everything()):
            charges = opened.charges(pool)
            mechanisms = tuple(charge.mechanism for charge in charges)
            found.append(
                Spent(
                    pool=pool.name,
                    codes=len(pool.marks),
                    answers=len(charges),
                    experiments=tuple(sorted({charge.experiment for charge in charges})),
                    epsilon=epsilon_of(mechanisms, delta=delta),
                    mechanisms=mechanisms,
                )
            )
    return sorted(found, key=lambda spent: -spent.epsilon)


def forecast(
    *,
    budget: Budget,
    patients: int,
    batch_size: int,
    epochs: int,
    rounds: int,
    noise: float | None = None,
    spare_rounds: int = 0,
    spent: Sequence[Mechanism] = (),
) -> Forecast:
    """Calculate an experiment under a budget.

    Args:
        budget: what may be told of one patient.
        patients: who train at the site.
        batch_size: patients in a step, on average.
        epochs: that a round trains.
        rounds: of the experiment.
        noise: its noise multiplier; None for the least with which the rounds fit.
        spare_rounds: that may be trained again within the budget.
        spent: what the same patients have been in before.

    Raises:
        ConfigError: a number is out of range, delta is above one over the patients, or nothing of the budget is left.
    """
    for name, value in (("patients", patients), ("batch size", batch_size), ("epochs", epochs), ("rounds", rounds)):
        if value < 1:
            raise ConfigError(f"{value} {name} train nothing; give 1 or more")
    if spare_rounds < 0:
        raise ConfigError(f"{spare_rounds} rounds cannot be spared; give a whole number, 0 for none")
    if budget.delta * patients > 1:
        raise ConfigError(
            f"delta {budget.delta:g} is above one over {patients} patients: to publish one of them at random would "
            f"satisfy it; choose at most {1 / patients:.1g}, better much less"
        )
    rate, steps = sampling_of_round(patients=patients, batch_size=batch_size, epochs=epochs)
    multiplier = noise or noise_for(
        epsilon=budget.epsilon,
        delta=budget.delta,
        sample_rate=rate,
        steps=steps * (rounds + spare_rounds),
        spent=spent,
    )
    a_round = Mechanism(noise_multiplier=multiplier, sample_rate=rate, steps=steps)
    shown = sorted({math.ceil(rounds * place / _ROWS) for place in range(1, _ROWS + 1)} | {1})
    after = tuple((count, epsilon_of([*spent, _times(a_round, count)], delta=budget.delta)) for count in shown)
    whole = _times(a_round, rounds + spare_rounds)
    fitting = rounds_within(a_round, epsilon=budget.epsilon, delta=budget.delta, spent=spent)
    return Forecast(
        a_round=a_round,
        least=noise is None,
        after=after,
        spare=epsilon_of([*spent, whole], delta=budget.delta) if spare_rounds else None,
        further=fitting - rounds,
        guess=best_guess([*spent, whole]),
        warnings=tuple(
            _warnings(a_round, budget, patients=patients, batch_size=batch_size, short=rounds + spare_rounds - fitting)
        ),
    )


def _times(mechanism: Mechanism, count: int) -> Mechanism:
    return replace(mechanism, steps=mechanism.steps * count)


def _warnings(a_round: Mechanism, budget: Budget, *, patients: int, batch_size: int, short: int) -> list[str]:
    said = []
    if short > 0:
        said.append(
            f"{short} of the rounds would be refused, as the budget is spent before them: more noise, fewer rounds, or "
            "no --noise for the least that fits"
        )
    loud = a_round.noise_multiplier / min(batch_size, patients)
    if loud > _LOUD:
        said.append(
            f"with {patients} patients the noise on every number of a step is {loud:.2g} times the longest gradient of "
            "one patient, and likely drowns what there is to learn: more patients, larger batches or a larger epsilon"
        )
    if a_round.sample_rate > _DENSE:
        said.append(
            f"every step takes {a_round.sample_rate:.0%} of the patients, so that who is in it is hardly a secret; "
            "smaller batches need less noise each"
        )
    if budget.delta * patients > 0.1:
        said.append(
            f"delta {budget.delta:g} is hardly below one over the patients ({1 / patients:.1g}); take a tenth of that "
            "or less"
        )
    return said
