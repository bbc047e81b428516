"""Tell readers of a personal model's answers if the shared model did as well or better on the site's test cases.

The numbers are those that the export stored. The statistical test behind them stands in the bundle's model card, see
:mod:`monai_fedlora.exporting.personal_or_shared`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_fedlora.site_report import PERSONAL, VIEWS

KEY = "personal_or_shared"
"""Entry of a bundle's metadata."""
_LEVEL = 0.05
_METRIC = "balanced_accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The comparison of a personal model with the shared one, for a reader.

    Attributes:
        sentence: without a full stop.
        warns: whether the shared model did better by more than chance explains; the sentence is then shown as a warning
            before any answer, and otherwise as a note.
    """

    sentence: str
    warns: bool


def compared(metadata: Mapping[str, Any]) -> Compared | None:
    """Read the comparison from a bundle's metadata; None for a shared model, or if the personal model did better.

    Raises:
        KeyError, TypeError, ValueError: the entry is there, and not as an export writes it.
    """
    entry = metadata.get(KEY)
    if entry is None:
        return _of_earlier(metadata)
    if entry["better"] not in ("shared", "tie"):
        return None
    return _told(entry.get("n"), warns=entry["better"] == "shared" and not _by_chance(entry, metadata))


def _told(cases: int | None, *, warns: bool) -> Compared:
    count = "" if cases is None else f" ({cases} case{'' if cases == 1 else 's'})"
    if warns:
        return Compared(
            sentence="on this hospital's own test cases the shared model did better than this personal one"
            f"{count}; ask for the shared one",
            warns=True,
        )
    return Compared(
        sentence=f"on this hospital's own test cases{count} this personal model and the shared one could not be told "
        "apart",
        warns=False,
    )


def _by_chance(entry: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    if entry.get("p") is not None:
        return float(entry["p"]) >= _LEVEL
    return _overlap(*(_tested(metadata, view, entry.get("metric", _METRIC)).get("interval_95") for view in VIEWS))


def _of_earlier(metadata: Mapping[str, Any]) -> Compared | None:
    """The comparison by the test metrics, for a bundle of an earlier version that has no such entry."""
    provenance = metadata.get("provenance")
    if not isinstance(provenance, Mapping) or provenance.get("kind") != "personal":
        return None
    personal, shared = (_tested(metadata, view) for view in VIEWS)
    mine, theirs = personal.get("value"), shared.get("value")
    if mine is None or theirs is None or mine >= theirs:
        return None
    cases = metadata["eval_metrics"]["test"][PERSONAL].get("n")
    return _told(cases, warns=not _overlap(personal.get("interval_95"), shared.get("interval_95")))


def _tested(metadata: Mapping[str, Any], view: str, metric: str = _METRIC) -> Mapping[str, Any]:
    found: Any = metadata
    for key in ("eval_metrics", "test", view, metric):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _overlap(one: Any, other: Any) -> bool:
    """Whether two 95 % intervals overlap; False if one is missing."""
    if one is None or other is None:
        return False
    return bool(max(one[0], other[0]) <= min(one[1], other[1]))
