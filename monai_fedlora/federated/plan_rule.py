"""What a rule of averaging asks of a federation's sites, and of the answers with which a round counts."""

from __future__ import annotations

import dataclasses

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.participation import Participation
from monai_fedlora.methods import Method
from monai_fedlora.methods.rules import RULES


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
