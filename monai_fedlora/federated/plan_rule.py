"""The rule of averaging of a federation that names none, and what a rule asks of its sites and their answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.participation import Participation
from monai_fedlora.files import load_tensors
from monai_fedlora.methods import Method
from monai_fedlora.methods.rules import RULES

AVERAGING = "averaging"
"""Setting of the methods that leave the rule open."""
MEAN = "factors"
USUAL_ROBUST = "median"
"""Rule of a federation of hospitals that names none, from :data:`ROBUST_FROM` sites on (ours, by benchmarks)."""
ROBUST_FROM = 5
"""Sites of which one or two that lie have less than half of the weight as a rule; below, the mean is usual."""


def usual_rule(
    method: Method, *, sites: Sequence[str], participation: Participation, top_k: float
) -> Mapping[str, str]:
    """The setting of a method by which a federation of hospitals averages where it names no rule.

    Args:
        method: as its settings make it, none of which names a rule.
        sites: members of the federation.
        participation: who is asked in a round.
        top_k: share of the values that a site sends.

    Returns:
        :data:`USUAL_ROBUST` for adapters of which at least :data:`ROBUST_FROM` sites are asked for the same values in a
        round; nothing, which leaves the method's own rule, for all others.
    """
    if AVERAGING not in {field.name for field in dataclasses.fields(method)} or method.rule != MEAN:
        return {}
    asked = participation.asked(sites, seed=0, number=0, attempt=0)
    adapters = getattr(method, "trains", "adapters") == "adapters"
    return {AVERAGING: USUAL_ROBUST} if adapters and len(asked) >= ROBUST_FROM and top_k == 1 else {}


def stored_averaging(source: Path) -> dict[str, str]:
    """The rule of averaging that the run which stored shared tensors had named, as a setting of its method.

    Returns:
        Nothing where it had named none, or where the file does not say; a resumed run's other checks refuse that.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    try:
        rule = json.loads(load_tensors(source)[1]["plan"])["method_args"][AVERAGING]
    except (KeyError, TypeError, ValueError):
        return {}
    return {AVERAGING: str(rule)}


def check_rule(method: Method, *, sites: int, participation: Participation, top_k: float) -> None:
    """Refuse a method's rule that cannot work with so many sites, with so few answers, or with such updates.

    Args:
        method: that may have a rule.
        sites: that take part.
        participation: of the plan.
        top_k: share of the values that a site sends.

    Raises:
        ConfigError: see above.
    """
    if (name := method.rule) is None:
        return
    rule, least = RULES[name], participation.min_sites
    if sites < rule.least_sites:
        raise ConfigError(
            f"averaging {name} needs at least {rule.least_sites} sites to tell who differs from the others, and "
            f"the plan has {sites}; choose another, median for example"
        )
    if least is not None and least < rule.least_sites:
        raise ConfigError(
            f"min_sites is {least}, and averaging {name} needs the answers of at least {rule.least_sites} sites: a "
            f"round with fewer would count and change nothing; set min_sites to {rule.least_sites} or more, or choose "
            "another, median for example"
        )
    if rule.coordinates and top_k < 1:
        raise ConfigError(
            f"averaging {name} compares every value with the same value of other sites, and with top_k "
            f"{top_k} most sites do not send it; leave top_k at 1, or choose geometric_median"
        )


def counted_by(participation: Participation, method: Method) -> Participation:
    """By which sites are asked and rounds count: a plan's, with no fewer answers than its method's rule takes."""
    least = RULES[method.rule].least_sites if method.rule else 1
    return dataclasses.replace(participation, min_sites=max(participation.least, least))
