"""Averages that a minority of sites cannot move at will: pure functions of arrays, in float64.

Of coordinates: the median and the trimmed mean (Yin et al., ICML 2018), here of weighted values. Of whole updates, by
their distances alone: the geometric median (Pillutla et al., IEEE TSP 2022) and Multi-Krum (Blanchard et al., NeurIPS
2017), which give each update another weight. Distances come from the Gram matrix of the changes, so that they may be
those of products B A that nobody builds.
"""

from __future__ import annotations

import numpy as np

TRIMMED = 0.25
"""Share of the weight that the trimmed mean leaves out at either end of a coordinate (ours): one site of four."""
_SMOOTHING = 1e-6
_STEPS = 200
_SETTLED = 1e-10


def median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted median of each coordinate: half of the weight lies on either side.

    Args:
        values: (n, ...).
        weights: (n,), that add up to 1.

    Returns:
        Values (...); the mean of two where exactly half of the weight lies below and above.
    """
    order, shares = _sorted(values, weights)
    sums = np.cumsum(shares, axis=0)
    below = np.argmax(sums >= 0.5 - 1e-12, axis=0)[None]
    above = np.argmax(sums > 0.5 + 1e-12, axis=0)[None]
    found = (np.take_along_axis(order, below, 0) + np.take_along_axis(order, above, 0)) / 2
    return np.asarray(found[0])


def trimmed_mean(values: np.ndarray, weights: np.ndarray, *, share: float = TRIMMED) -> np.ndarray:
    """The mean of each coordinate without the largest and the smallest values.

    Args:
        values: (n, ...).
        weights: (n,), that add up to 1.
        share: of the weight that is left out at either end, from 0 to below 0.5; a value that lies across the border
            counts with what is left of its weight.
    """
    order, shares = _sorted(values, weights)
    ends = np.cumsum(shares, axis=0)
    kept = np.clip(np.minimum(ends, 1 - share) - np.maximum(ends - shares, share), 0, None)
    return np.asarray((kept * order).sum(0) / kept.sum(0))


def geometric_median(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights of the point with the smallest weighted sum of distances to all updates, by Weiszfeld's steps.

    Args:
        gram: (n, n) inner products of the changes.
        weights: (n,), that add up to 1.

    Returns:
        (n,) weights that add up to 1. Distances below a millionth of the mean one count as that much (smoothing, ours).
    """
    usual = np.sqrt(np.clip(np.diagonal(gram), 0, None)).mean()
    if not usual > 0:
        return weights
    found = weights
    for _ in range(_STEPS):
        away = np.sqrt(np.clip(np.diagonal(gram) - 2 * gram @ found + found @ gram @ found, 0, None))
        step = weights / np.maximum(away, _SMOOTHING * usual)
        before, found = found, step / step.sum()
        if np.abs(found - before).max() < _SETTLED:
            break
    return found


def liars(n: int) -> int:
    """How many of ``n`` sites Krum can bear, 2 f + 3 <= n; below zero where there are too few to tell."""
    return (n - 3) // 2


def multi_krum(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Keep the n - f updates that lie closest to their n - f - 2 nearest others, with their weights.

    Args:
        gram: (n, n) inner products of the changes, n at least 5.
        weights: (n,), that add up to 1.

    Returns:
        (n,) weights that add up to 1, zero for the f that were left out, f as in :func:`liars`.
    """
    n, f = len(weights), liars(len(weights))
    squares = np.diagonal(gram)
    distances = np.clip(squares[:, None] + squares[None, :] - 2 * gram, 0, None)
    nearest = np.sort(distances + np.diag(np.full(n, np.inf)), axis=1)[:, : n - f - 2]
    kept = np.argsort(nearest.sum(1), kind="stable")[: n - f]
    found = np.zeros(n)
    found[kept] = weights[kept]
    return found / found.sum()


def _sorted(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, ...) of each coordinate in their order, and the weights that go with them."""
    order = np.argsort(values, axis=0, kind="stable")
    return np.take_along_axis(values, order, 0), weights[order]
