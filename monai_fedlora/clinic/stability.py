"""How far an answer moves when what might have been shown just as well is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """The answers to one study over small changes of what is shown.

    Attributes:
        probabilities: of the classes, one row per change; the answer to the study itself is not among them.
        changes: in words, one per row.
    """

    probabilities: tuple[tuple[float, ...], ...]
    changes: tuple[str, ...]

    @property
    def answers(self) -> tuple[int, ...]:
        """Index of the most probable class, by row."""
        return tuple(max(range(len(row)), key=row.__getitem__) for row in self.probabilities)

    def ranges(self, probabilities: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """Lowest and highest probability of each class, the study's own ``probabilities`` among them."""
        return tuple((min(column), max(column)) for column in zip(probabilities, *self.probabilities, strict=True))

    def moved(self, best: int) -> tuple[str, ...]:
        """The changes after which another class than ``best`` is the most probable one."""
        return tuple(change for change, answer in zip(self.changes, self.answers, strict=True) if answer != best)

    def to_json(self, classes: Sequence[str], probabilities: Sequence[float]) -> dict[str, Any]:
        """For programs; ``probabilities`` are the study's own."""
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return {
            "answers": len(self.changes) + 1,
            "range": {name: list(span) for name, span in zip(classes, self.ranges(probabilities), strict=True)},
            "classes": [classes[index] for index in sorted({best, *self.answers})],
            "moved": list(self.moved(best)),
        }
