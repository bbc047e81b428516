"""Draw fine lines and dots with soft edges, also thinner than a pixel: hairs, vessels, spots."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray

_FINEST = 0.45
"""Standard deviation of the smallest blur, in pixels; a thinner line is drawn paler instead."""


def dots(shape: tuple[int, int], x: Array, y: Array, sigma: ArrayLike, weight: ArrayLike) -> Array:
    """Return the sum of Gaussian dots.

    Args:
        shape: (Y, X) of the picture.
        x, y: (N) centres, pixels; dots outside the picture are clipped.
        sigma: (N) standard deviations, pixels.
        weight: (N) heights of the dots; a dot finer than a pixel keeps its volume.

    Returns:
        (Y, X) float32.
    """
    across, down, fine, height = (
        np.asarray(part, np.float32).ravel() for part in np.broadcast_arrays(x, y, sigma, weight)
    )
    wide = np.sqrt(fine * fine + np.float32(_FINEST**2))
    return _sum(shape, across, down, wide, height * (fine / wide) ** 2)


def lines(shape: tuple[int, int], nodes: Array, sigma: ArrayLike, weight: ArrayLike) -> Array:
    """Return how much of every pixel is covered by lines through the nodes.

    Args:
        shape: (Y, X) of the picture.
        nodes: (B, N, 2) x and y of the nodes of B lines, pixels.
        sigma: (B, N) or broadcastable: standard deviation of the line's profile, pixels.
        weight: (B, N) or broadcastable: height of the profile on the line.

    Returns:
        (Y, X) float32, not negative; crossings add up.
    """
    if nodes.size == 0:
        return np.zeros(shape, np.float32)
    nodes = nodes.astype(np.float32)
    fine, height = (np.broadcast_to(np.asarray(part, np.float32), nodes.shape[:2]) for part in (sigma, weight))
    wide = np.sqrt(fine * fine + np.float32(_FINEST**2))
    height = height * fine / wide
    lengths = np.sqrt(((nodes[:, 1:] - nodes[:, :-1]) ** 2).sum(-1))
    count = max(1, math.ceil(float(lengths.max()) / (1.8 * float(wide.min()))))
    share = (np.arange(count, dtype=np.float32) + 0.5) / count

    def between(values: Array) -> Array:
        first, second = values[:, :-1, None], values[:, 1:, None]
        return first + (second - first) * share

    x, y, spread = between(nodes[..., 0]), between(nodes[..., 1]), between(wide)
    amount = between(height) * (lengths[..., None] / count) / (np.float32(math.sqrt(2 * math.pi)) * spread)
    return _sum(shape, x.ravel(), y.ravel(), spread.ravel(), amount.ravel())


def _sum(shape: tuple[int, int], x: Array, y: Array, sigma: Array, weight: Array) -> Array:
    """Add up Gaussians, grouped by their radius in pixels."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    reaches = np.ceil(2.4 * sigma).astype(np.int32)
    inside = (x > -reaches) & (y > -reaches) & (x < width - 1 + reaches) & (y < height - 1 + reaches) & (weight != 0)
    for reach in np.unique(reaches[inside]):
        chosen = inside & (reaches == reach)
        column, row = np.rint(x[chosen]), np.rint(y[chosen])
        window = np.arange(-reach, reach + 1, dtype=np.float32)
        scale = np.float32(-0.5) / sigma[chosen] ** 2
        across = np.exp((window - (x[chosen] - column)[:, None]) ** 2 * scale[:, None])
        down = np.exp((window - (y[chosen] - row)[:, None]) ** 2 * scale[:, None]) * weight[chosen][:, None]
        side = width + 4 * reach
        corner = (row.astype(np.int32) + reach) * side + column.astype(np.int32) + reach
        offset = np.arange(2 * reach + 1)
        place = corner[:, None, None] + offset[:, None] * side + offset
        padded = np.bincount(
            place.ravel(), (down[:, :, None] * across[:, None, :]).ravel(), side * (height + 4 * reach)
        )
        total += padded.reshape(height + 4 * reach, side)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    return total


def wander(rng: np.random.Generator, *, start: Array, heading: Array, length: Array, nodes: int, curl: float) -> Array:
    """Return randomly bent lines (B, N, 2).

    Args:
        rng: source of the bends.
        start: (B, 2) first nodes.
        heading: (B) first directions, radians.
        length: (B) lengths, in the unit of ``start``.
        nodes: N.
        curl: standard deviation of the change of direction over a whole line, radians; half of it is one even
            bend, the rest waves.
    """
    count = len(start)
    way = np.linspace(0, 1, nodes - 1)
    angles = np.asarray(heading)[:, None] + rng.normal(0, curl, (count, 1)) * way
    for waves in (1.0, 2.3):
        swing, phase = rng.normal(0, 0.35 * curl / waves, (count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
        angles = angles + swing * (np.sin(2 * np.pi * waves * way + phase) - np.sin(phase))
    steps = np.stack([np.cos(angles), np.sin(angles)], -1) * (np.asarray(length) / (nodes - 1))[:, None, None]
    return np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, 1)], 1)
