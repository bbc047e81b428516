"""How a server combines updates: pure functions of arrays, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Payload = Mapping[str, np.ndarray]
Updates = Sequence[tuple[float, Payload]]
"""Weight n_k / n and tensors of each site, in the order of the sites' names."""


def average(updates: Updates, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """theta <- sum_k n_k / n theta_k for each key (McMahan et al., AISTATS 2017, algorithm 1)."""
    return {key: _weighted_sum((weight, payload[key]) for weight, payload in updates) for key in keys}


def _weighted_sum(terms: Iterable[tuple[float, np.ndarray]]) -> np.ndarray:
    total: np.ndarray | None = None
    for weight, values in terms:
        part = weight * values.astype(np.float64)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("there is no update to combine")
    return total
