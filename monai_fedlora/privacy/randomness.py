"""Randomness that nobody outside the site can repeat.

A generator that is seeded from a plan, or with 32 bits as PyTorch's on a processor is, could be run again by whoever
sees the result, and its noise subtracted. What is drawn here comes from the operating system, number by number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np

_PRECISION = 2.0**-53


class Randomness:
    """Draws patients and noise.

    Attributes:
        secret: whether nobody can repeat it, which whoever keeps account asks for.
    """

    def __init__(self) -> None:
        self.secret = True
        self._bytes: Callable[[int], bytes] = os.urandom

    @classmethod
    def seeded(cls, seed: int) -> Randomness:
        """Repeatable draws, which protect nobody: for tests alone, and refused by every ledger."""
        found = cls()
        found.secret = False
        found._bytes = np.random.default_rng(seed).bytes
        return found

    def drawn(self, count: int, *, rate: float) -> np.ndarray:
        """Indices below ``count``, in order, each of which is there with probability ``rate``, apart from all others.

        Args:
            count: of what there is to draw.
            rate: from 0 to 1, to within 2^-53.
        """
        return np.flatnonzero(self._uniform(count) < rate)

    def normal(self, count: int) -> np.ndarray:
        """Independent standard normal numbers (count,), float64, by Box and Muller (1958)."""
        half = (count + 1) // 2
        radius = np.sqrt(-2 * np.log(self._uniform(half) + _PRECISION))
        angle = 2 * math.pi * self._uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def _uniform(self, count: int) -> np.ndarray:
        """Numbers in [0, 1) with 53 random bits each."""
        return (np.frombuffer(self._bytes(8 * count), dtype=np.uint64) >> 11) * _PRECISION
