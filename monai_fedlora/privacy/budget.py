"""What a site lets everything it ever sends tell about one patient, whatever experiments ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Budget:
    """(epsilon, delta)-differential privacy for each patient, over all experiments together.

    Attributes:
        epsilon: above 0.
        delta: above 0 and below 1; far below one over the patients.

    Raises:
        ValueError: a number is out of range; the message completes "budget must be".
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if type(self.epsilon) not in (int, float) or not 0 < self.epsilon < math.inf:
            raise ValueError("null for none, or have an epsilon above 0, such as 8")
        if type(self.delta) not in (int, float) or not 0 < self.delta < 1:
            raise ValueError("null for none, or have a delta between 0 and 1, such as 1e-5")

    def to_json(self) -> dict[str, float]:
        """As it stands in ``policy.json``; :meth:`from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Budget | None:
        """Read :meth:`to_json`'s form, or null for no budget.

        Raises:
            ValueError: see the class.
        """
        if value is None:
            return None
        if not isinstance(value, Mapping) or set(value) != {"epsilon", "delta"}:
            raise ValueError("null for none, or an object with epsilon and delta")
        return cls(**value)

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:g} at delta {self.delta:g}"
