"""Random textures as functions of position, so that a second picture of a lesion shows the same texture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Array = np.ndarray

_SIDE = 64  # points of a texture's lattice along each axis; the lattice repeats


def noise(rng: np.random.Generator, x: Array, y: Array, frequency: float) -> Array:
    """Return smooth random values at the points, with mean 0 and a standard deviation of about 1.

    Random numbers on a lattice are interpolated by a smooth step (value noise).

    Args:
        rng: source of the lattice.
        x, y: coordinates, of one shape.
        frequency: lattice points per unit of length.
    """
    table = rng.standard_normal(_SIDE * _SIDE, dtype=np.float32)
    start_x, start_y = rng.uniform(0, _SIDE, 2).astype(np.float32)
    column, across = _split(x * np.float32(frequency) + start_x)
    row, down = _split(y * np.float32(frequency) + start_y)
    across *= across * (3 - 2 * across)
    down *= down * (3 - 2 * down)
    right = (column + 1) & (_SIDE - 1)
    top, bottom = (row & (_SIDE - 1)) * _SIDE, ((row + 1) & (_SIDE - 1)) * _SIDE
    column &= _SIDE - 1
    upper, lower = table[top + column], table[bottom + column]
    upper += across * (table[top + right] - upper)
    lower += across * (table[bottom + right] - lower)
    upper += down * (lower - upper)
    upper *= np.float32(1.35)
    return upper


def cells(rng: np.random.Generator, x: Array, y: Array, frequency: float) -> tuple[Array, Array, Array]:
    """Return a cell texture (Worley, SIGGRAPH 1996): every point belongs to the nearest of random seeds.

    Args:
        rng: source of the seeds.
        x, y: coordinates, of one shape.
        frequency: cells per unit of length.

    Returns:
        the distance to the cell's seed and the distance to its border (about), both in widths of a cell, and a
        random number of the cell, 0..1.
    """
    seeds = rng.uniform(0.12, 0.88, (2, _SIDE * _SIDE)).astype(np.float32)
    tones = rng.random(_SIDE * _SIDE, dtype=np.float32)
    start_x, start_y = rng.uniform(0, _SIDE, 2).astype(np.float32)
    column, across = _split(x * np.float32(frequency) + start_x)
    row, down = _split(y * np.float32(frequency) + start_y)
    nearest = np.full(across.shape, 9, np.float32)
    second = np.full(across.shape, 9, np.float32)
    tone = np.zeros(across.shape, np.float32)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            place = ((row + step_y) & (_SIDE - 1)) * _SIDE + ((column + step_x) & (_SIDE - 1))
            away_x = seeds[0][place] + (step_x - across)
            away_y = seeds[1][place] + (step_y - down)
            square = away_x * away_x + away_y * away_y
            closer = square < nearest
            second = np.where(closer, nearest, np.minimum(second, square))
            nearest = np.where(closer, square, nearest)
            tone = np.where(closer, tones[place], tone)
    near = np.sqrt(nearest)
    return near, (np.sqrt(second) - near) / 2, tone


def mesh(rng: np.random.Generator, x: Array, y: Array, frequency: float) -> Array:
    """Return a honeycomb of lines: 1 on a line, 0 in the middle of a hole.

    Three sets of waves at 120 degrees; bent coordinates give bent lines.

    Args:
        rng: source of the direction.
        x, y: coordinates, of one shape.
        frequency: holes per unit of length.
    """
    turn = rng.uniform(0, np.pi)
    waves = np.zeros(np.shape(x), np.float32)
    for angle in turn + np.array([0, 2, 4]) * np.pi / 3:
        pace = 2 * np.pi * frequency * 2 / np.sqrt(3)
        waves += np.cos(np.float32(pace * np.cos(angle)) * x + np.float32(pace * np.sin(angle)) * y)
    return np.clip((1.1 - waves) * np.float32(0.45), 0, 1)


def coarse(size: int, stride: int) -> Array:
    """Return every ``stride``-th place of an axis of ``size`` pixels, and one more to cover its end; float32."""
    return np.arange(-(-(size - 1) // stride) + 1, dtype=np.float32) * np.float32(stride)


@lru_cache(maxsize=256)
def stretch(size: int, stride: int) -> Array:
    """Return the (size, places) float32 matrix that interpolates linearly from the places of :func:`coarse`."""
    place = np.arange(size) / stride
    low = np.minimum(place.astype(int), max(len(coarse(size, stride)) - 2, 0))
    matrix = np.zeros((size, len(coarse(size, stride))), np.float32)
    matrix[np.arange(size), low] = 1 - (place - low)
    if matrix.shape[1] > 1:
        matrix[np.arange(size), low + 1] = place - low
    return matrix


def _split(place: Array) -> tuple[Array, Array]:
    """Return the whole (an index) and the fractional part of coordinates."""
    whole = np.floor(place)
    return whole.astype(np.intp), place - whole
