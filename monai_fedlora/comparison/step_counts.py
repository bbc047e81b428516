"""Optimiser steps of the methods of a comparison: how many a round has, and the settings that make them equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from monai_fedlora.comparison.facts import Facts
from monai_fedlora.engines.method import Turns, steps_of_round
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.resources import bundle_setting

STEP_SETTINGS = ("batch_size", "accumulation_steps")
"""Training settings on which the number of steps depends, beside the cases and the epochs."""
_TOLERANCE = 1e-9


def step_counts(plan: Plan, facts: Facts, cases: int) -> dict[str, float]:
    """Optimiser steps in a round of a site, as means over the rounds in which every phase has its turn.

    Args:
        plan: of the run.
        facts: of its method.
        cases: that the site, or the pool of all sites, trains on.

    Returns:
        ``steps``; of them ``shared`` and ``private``, which move shared and private parameters (a step that trains both
        is in both); ``cases``, the largest number of cases in a step; and ``after``, the steps of the whole personal
        model after the last round.
    """
    batch, accumulated = (setting(plan.bundle, plan.training, name) for name in STEP_SETTINGS)
    of_epochs = partial(steps_of_round, cases=cases, batch_size=batch, accumulation_steps=accumulated)
    steps = of_epochs(epochs=plan.local_epochs)
    if plan.privacy is not None:
        after = plan.epochs_after if facts.private else plan.fine_tune_epochs
        taken = {"steps": steps, "shared": steps, "private": 0}
        return {**taken, "cases": min(batch * accumulated, cases), "after": of_epochs(epochs=after)}
    turns = Turns.of([phase.share for phase in facts.phases], steps)
    moved = [facts.phases[number] for number in turns.order]
    return {
        "steps": steps,
        "shared": sum(phase.shared for phase in moved) / turns.rounds,
        "private": sum(phase.private for phase in moved) / turns.rounds,
        "cases": min(batch * accumulated, cases),
        "after": of_epochs(epochs=plan.fine_tune_epochs),
    }


def setting(bundle: str, training: Mapping[str, Any], name: str) -> Any:
    """A training setting: as given, or as the bundle has it."""
    return training[name] if name in training else bundle_setting(bundle, "train", name)


def check_equal(methods: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Facts], bundle: str) -> None:
    """Refuse methods whose steps cannot be made equal.

    Args:
        methods: with the settings of their training.
        facts: by method.
        bundle: whose settings hold where a method gives none.

    Raises:
        ConfigError: batches differ, or a method's phases have unequal shares of a round.
    """
    for name in STEP_SETTINGS:
        values = {method: setting(bundle, training, name) for method, training in methods.items()}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{value} for {method}" for method, value in values.items())
            raise ConfigError(f"with equal steps all methods have the same {name}, and it is {said}; set it for all")
    for method, found in facts.items():
        shares = [phase.share for phase in found.phases]
        if max(shares) - min(shares) > _TOLERANCE:
            said = " and ".join(f"{share:g}" for share in shares)
            raise ConfigError(
                f"with equal steps every phase of {method} trains as long as other methods do, and the phases have "
                f"shares of {said}; leave that setting at 0.5"
            )


def check_steps_not_tuned(names: Iterable[str], *, equal_steps: bool) -> None:
    """Refuse to choose for each method what equal steps need to be the same.

    Raises:
        ConfigError: one of the settings to choose is of :data:`STEP_SETTINGS`.
    """
    if equal_steps and (found := [name for name in names if name in STEP_SETTINGS]):
        raise ConfigError(
            f"--tune {found[0]} would give methods different steps, and --equal-steps makes them equal; leave one out"
        )


def equalised(
    bundle: str, training: Mapping[str, Any], phases: Sequence[Any], *, local_epochs: int, pooled_sites: int
) -> tuple[int, dict[str, Any]]:
    """Epochs of a round, and training settings, with which every parameter takes as many steps in it as at any site.

    Each phase goes through the site's cases as often as a method without phases does, so that a round has so many times
    the epochs. A model on the cases of several sites takes its steps on so many times the cases.

    Args:
        bundle, training: of the method.
        phases: of the method.
        local_epochs: of a round of a method without phases.
        pooled_sites: whose cases are pooled; 1 where each site trains on its own.
    """
    times = len(phases)
    warmup = setting(bundle, training, "warmup_epochs")
    accumulated = setting(bundle, training, "accumulation_steps")
    changed: dict[str, Any] = {}
    if times > 1 and warmup:
        changed["warmup_epochs"] = warmup * times
    if pooled_sites > 1:
        changed["accumulation_steps"] = accumulated * pooled_sites
    return local_epochs * times, {**training, **changed}


def steps_beside(one: Mapping[str, float], other: Mapping[str, float]) -> str | None:
    """How the steps of one method differ from those of another, in words; None where they do not.

    A part that it does not have is no difference, nor is a round of more steps in which each part has as many.
    """
    most = other["steps"]
    said = [
        f"{one[part]:.3g} of its {part} part"
        for part in ("shared", "private")
        if one[part] and abs(one[part] - most) > _TOLERANCE
    ]
    told = [f"{' and '.join(said)}, where others take {most:.3g}"] if said else []
    if not said and abs(one["cases"] - other["cases"]) > _TOLERANCE:
        told.append(f"{one['cases']:.3g} cases in a step, where others have {other['cases']:.3g}")
    if abs(one["after"] - other["after"]) > _TOLERANCE:
        told.append(f"{one['after']:.3g} more after the last round, where others take {other['after']:.3g}")
    return "; ".join(told) or None
