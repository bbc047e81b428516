"""How far a model's numbers were off on test cases, by its bundle's metadata: all that is known of their certainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from monai_fedlora.site_report import PERSONAL, SHARED

UNKNOWN = "How far it is usually off is not known: the bundle has no error of it on test cases"


def usual_error(metadata: Mapping[str, Any], name: str, *, unit: str) -> str:
    """A sentence on a regression's number, without a full stop.

    Args:
        metadata: of the bundle.
        name: of the value.
        unit: of the value; empty where it is not known.
    """
    error = _measured(metadata, f"mean_absolute_error_{name}")
    if error is None:
        return UNKNOWN
    points = " points" if unit == "%" else f" {unit}" if unit else ""
    said = f"On {_cases(metadata, name)} it was off by {error:.3g}{points} on average"
    low, high = (_measured(metadata, f"agreement_{end}_{name}") for end in ("low", "high"))
    if low is None or high is None:
        return said
    return f"{said}; the differences, found minus true, lay mostly between {low:+.3g} and {high:+.3g}{points}"


def usual_overlap(metadata: Mapping[str, Any], name: str) -> str:
    """A sentence on the outlines of a structure, without a full stop."""
    dice = _measured(metadata, f"dice_{name}")
    if dice is None:
        return "How well its outlines usually agree with a reader's is not known: the bundle says nothing of it"
    return f"On {_cases(metadata, name)} the overlap with the reader's outlines (Dice) was {dice:.2f} on average"


def _cases(metadata: Mapping[str, Any], name: str) -> str:
    tested = _tested(metadata)
    count = tested.get(f"cases_{name}", tested.get("n"))
    whose = "its site's test cases" if _is_personal(metadata) else "the sites' test cases"
    return whose if count is None else f"{int(count)} of {whose}"


def _measured(metadata: Mapping[str, Any], metric: str) -> float | None:
    entry = _tested(metadata).get(metric)
    value = entry.get("value") if isinstance(entry, Mapping) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _is_personal(metadata: Mapping[str, Any]) -> bool:
    return metadata.get("provenance", {}).get("kind") == "personal"


def _tested(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Test metrics of the exported model."""
    views = metadata.get("eval_metrics", {}).get("test") or {}
    found = views.get(PERSONAL if _is_personal(metadata) else SHARED)
    return found if isinstance(found, Mapping) else {}
