"""The results of membership inference attacks in a bundle's metadata and card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from monai_fedlora.exporting.leakage import RUN, Leakage

RUN_NOT_MEASURED = "nobody looked; monai-fedlora audit of the run does"


def card_entry(leakage: Leakage, run: Leakage | None = None) -> dict[str, Any]:
    """The entry ``measured_leakage`` of a bundle's metadata: AUCs, intervals and numbers of patients, with two
    decimals. What the model's ``run`` has told beside the model stands in an entry of the same form, ``run``.

    The limits of intervals are rounded outwards. The results also depend on the members, without a formal bound on what
    they reveal; with two decimals a single patient rarely changes them.
    """
    return {**_entry(leakage), RUN: _entry(run) if run else {"measured": False, "reason": RUN_NOT_MEASURED}}


def _entry(leakage: Leakage) -> dict[str, Any]:
    if not leakage.attacks:
        return {"measured": False, "reason": next(iter(leakage.not_measured.values()), "there were no cases")}
    return {
        "measured": True,
        "attacks": [
            {
                "name": attack.name,
                "target": attack.target,
                "members": list(attack.members),
                "n_members": attack.n_members,
                "n_others": attack.n_others,
                "auc": round(attack.auc, 2),
                "interval_95": [
                    math.floor(round(100 * attack.interval_95[0], 6)) / 100,
                    math.ceil(round(100 * attack.interval_95[1], 6)) / 100,
                ],
            }
            for attack in leakage.attacks
        ],
        "not_measured": dict(leakage.not_measured),
        "warnings": list(leakage.warnings),
    }


def by_reason(not_measured: Mapping[str, str]) -> dict[str, list[str]]:
    """Group the attacks that were not measured by reason."""
    found: dict[str, list[str]] = {}
    for name, why in not_measured.items():
        found.setdefault(why, []).append(name)
    return found


def leakage_line(entry: Mapping[str, Any]) -> str:
    """One line on the strongest attack that needs no training, from the result of :func:`card_entry`."""
    if not entry["measured"]:
        return f"measured leakage: none was measured: {entry['reason']}"
    first = entry["attacks"][0]
    low, high = first["interval_95"]
    return (
        f"measured leakage: {first['name']} on the {first['target']} tells members from others with an AUC of "
        f"{first['auc']:.2f} ({low:.2f} to {high:.2f}; 0.5 is guessing), {first['n_members']} against "
        f"{first['n_others']} patients; the card has all attacks that were tried"
    )
