"""How far a bundle's answers can be trusted: what its export found out of calibration and of its training cases.

Both stand in its metadata, see :mod:`monai_fedlora.export.calibration` and
:mod:`monai_fedlora.export.reference`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNCALIBRATED = "the probabilities are not calibrated"
NO_REFERENCE = "unusual images cannot be recognised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Up to which distance from the training cases an image is like them.

    Attributes:
        limit: distance, see :mod:`monai_fedlora.export.reference`.
        share: of the site's own cases, how many lie within it, in (0, 1).
        cases: number of training cases.
    """

    limit: float
    share: float
    cases: int

    def doubts(self, distance: float) -> list[str]:
        """What a distance beyond the limit says to a reader; nothing within it."""
        if distance <= self.limit:
            return []
        return [
            f"the image is unlike the {self.cases} cases that the model was trained on: its distance from them is "
            f"{distance:.1f}, and about {self.share:.0%} of the site's own cases are within {self.limit:.1f}"
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the metadata say.

    Attributes:
        reach: of the training cases; None if the bundle has no statistics of them.
        calibration: ``temperature``, ``fitted``, ``reason`` and ``ece`` (expected calibration error on the test cases,
            None if unknown); empty if the metadata say nothing of it.
        notes: sentences for whoever reads an answer.
    """

    reach: Reach | None = None
    calibration: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def read_trust(metadata: Mapping[str, Any]) -> Trust:
    """Read a bundle's metadata.

    Raises:
        KeyError, TypeError, ValueError: an entry is there, and not as an export writes it.
    """
    notes: list[str] = []
    calibration = _calibration(metadata.get("calibration"), notes)
    reach = _reach(metadata.get("out_of_distribution"), notes)
    return Trust(reach=reach, calibration=calibration, notes=tuple(notes))


def _calibration(entry: Mapping[str, Any] | None, notes: list[str]) -> dict[str, Any] | None:
    if entry is None:
        notes.append(f"{UNCALIBRATED}: the bundle says nothing of it")
        return None
    test = entry.get("test") or {}
    error = test["ece"]["after"] if test else None
    if not entry["fitted"]:
        off = f"; on {test['n']} test cases they were off by {error:.0%} on average" if test else ""
        notes.append(f"{UNCALIBRATED} ({entry['reason']}){off}")
    return {
        "temperature": float(entry["temperature"]),
        "fitted": bool(entry["fitted"]),
        "reason": entry["reason"],
        "ece": None if error is None else float(error),
    }


def _reach(entry: Mapping[str, Any] | None, notes: list[str]) -> Reach | None:
    if entry is None or not entry["available"]:
        reason = "" if entry is None else f" ({entry['reason']})"
        notes.append(f"{NO_REFERENCE}: the bundle has no statistics of its training cases{reason}")
        return None
    return Reach(limit=float(entry["threshold"]), share=float(entry["quantile"]), cases=int(entry["training_cases"]))
