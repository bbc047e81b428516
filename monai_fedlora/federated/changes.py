"""What differs between the plan that stored something and the plan that goes on from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan

_OF_THE_SERVER = (
    "declared_cases",
    "max_share",
    "max_update_rms",
    "participation",
    "server_optimizer",
    "site_weights",
    "sites",
    "update_bound",
)
"""Settings that do not change what a site computes."""
_FLAT = ("method_args", "training", "versions")
_PINS = ("bundle_sha256", "versions")
"""Settings that are compared where both plans have them: without one, what was installed is not known."""
_NO_SETTING = ("changed", "fine_tune_epochs", "rounds", "start", "start_round")


def plan_changes(before: Any, after: Plan, *, at_site: bool = False) -> dict[str, str]:
    """Compare a stored plan with the one that goes on.

    Settings of the method are compared with its defaults filled in. Lengths are not: see :func:`end_change`.

    Args:
        before: JSON form of the plan that was stored, by any version.
        after: the plan that goes on.
        at_site: leave out what only the server acts upon.

    Returns:
        ``old -> new`` by the setting's name; those of method and training are called ``method_args.<name>`` and
        ``training.<name>``.
    """
    try:
        old = _settings(Plan.from_json(before))
    except ConfigError:  # of another version, which had other settings
        old = _flat(before if isinstance(before, Mapping) else {})
    new = _settings(after)
    left_out = (*_NO_SETTING, *(_OF_THE_SERVER if at_site else ()))
    return {
        name: f"{_shown(old, name)} -> {_shown(new, name)}"
        for name in sorted({*old, *new})
        if name not in left_out and old.get(name) != new.get(name) and not _unknown(name, old, new)
    }


def end_change(before: Any, after: Plan) -> dict[str, str]:
    """Whether a resumed run has another last round than the interrupted one, which changes its learning rates.

    A run that had finished can only be extended, so that this is no change of its plan.
    """
    try:
        old = Plan.from_json(before)
    except ConfigError:
        return {}
    end, ends = (plan.start_round + plan.rounds for plan in (old, after))
    return {"rounds": f"{end} in all -> {ends} in all"} if end not in (ends, after.start_round) else {}


def fine_tune_change(before: Any, after: Plan) -> dict[str, str]:
    """Whether a run that has come to its end was to be trained on after its last round for another time."""
    name = "fine_tune_epochs"
    epochs, asked = before.get(name, 0) if isinstance(before, Mapping) else 0, after.fine_tune_epochs
    return {name: f"{epochs} -> {asked}"} if epochs != asked else {}


def begins_budget(before: Any, after: Plan) -> bool:
    """Whether a plan has a budget for privacy, and what was stored was trained without one.

    Moments of an optimiser and values that were not sent hold patients without noise, and would leave with the next
    answer.
    """
    return after.privacy is not None and not (isinstance(before, Mapping) and before.get("privacy"))


def listed(changes: Mapping[str, str]) -> str:
    """Changes as one text."""
    return "; ".join(f"{name}: {change}" for name, change in changes.items())


def _unknown(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether one of two plans does not pin what the other does."""
    return name.partition(".")[0] in _PINS and not (name in old and name in new)


def _settings(plan: Plan) -> dict[str, Any]:
    method = json.loads(json.dumps(dataclasses.asdict(plan.build_method())))
    return _flat({**plan.to_json(), "method_args": method})


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, entry in value.items():
        if name in _FLAT and isinstance(entry, Mapping):
            found |= {f"{name}.{key}": each for key, each in entry.items()}
        else:
            found[name] = entry
    return found


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return str(settings[name])[:200] if name in settings else "not set"
