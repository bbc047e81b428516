"""Settings of a plan that are neither a method's nor training's, as users name them beside those."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.server_optimizer import OPTIMIZERS, ServerOptimizer
from monai_fedlora.privacy.privacy_settings import PrivacySettings

_SERVER = "server_"
_OPTIMIZER = f"{_SERVER}optimizer"
FINE_TUNE = "fine_tune_epochs"
_WEIGHTS = "site_weights"
_OF_PLAN = (FINE_TUNE, _WEIGHTS)
BUDGET = "dp_"
_BUDGET: tuple[str, ...] = tuple(f"{BUDGET}{field.name}" for field in dataclasses.fields(PrivacySettings))
FEDERATION_SETTINGS: tuple[str, ...] = (
    *_OF_PLAN,
    *_BUDGET,
    _OPTIMIZER,
    *sorted({f"{_SERVER}{field.name}" for found in OPTIMIZERS.values() for field in dataclasses.fields(found)}),
)
"""``fine_tune_epochs`` and ``site_weights``, see :class:`monai_fedlora.federated.plan.Plan`; ``dp_epsilon`` and so on,
of a budget, see :class:`monai_fedlora.privacy.privacy_settings.PrivacySettings`; ``server_optimizer`` and, with the
same beginning, the settings of the optimisers, see :mod:`monai_fedlora.federated.server_optimizer`."""


def of_federation(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a plan that are set among settings of other kinds.

    Raises:
        ConfigError: a setting is out of range, or is one of an optimiser that is not chosen or of half a budget.
    """
    given = {name: value for name, value in settings.items() if name in FEDERATION_SETTINGS}
    server = {name.removeprefix(_SERVER): value for name, value in given.items() if name.startswith(_SERVER)}
    found: dict[str, Any] = {name: value for name, value in given.items() if name in _OF_PLAN}
    if budget := {name.removeprefix(BUDGET): value for name, value in given.items() if name in _BUDGET}:
        if missing := [name for name in ("epsilon", "delta", "clip") if budget.get(name) is None]:
            raise ConfigError(f"a budget for privacy has an epsilon, a delta and a clip; give {BUDGET}{missing[0]} too")
        found["privacy"] = PrivacySettings(**budget)
    if server.get("optimizer") is None:
        if others := [name for name in server if name != "optimizer"]:
            raise ConfigError(f"{_SERVER}{others[0]} needs a {_OPTIMIZER}: one of {', '.join(OPTIMIZERS)}")
        return found
    return {**found, _OPTIMIZER: ServerOptimizer.from_json(server)}
