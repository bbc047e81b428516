"""Drawing from distances: soft edges, smooth random textures, and parts of a rotated grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


def smooth(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, ...]) -> Array:
    """Return a smooth random float32 field of this shape, mean 0 and standard deviation about 1.

    ``cells`` gives the number of independent values along each axis.
    """
    field = rng.standard_normal(cells, dtype=np.float32)
    for size, count in zip(shape, cells, strict=True):
        place = (np.arange(size, dtype=np.float32) + 0.5) * (count / size) - 0.5
        weights = np.exp(-((place[:, None] - np.arange(count, dtype=np.float32)) ** 2) / 0.6)
        weights /= np.sqrt((weights**2).sum(1, keepdims=True))
        field = np.tensordot(field, weights, (0, 1))
    return field


def edge(distance: Array, width: float = 1.5) -> Array:
    """Return 1 well inside (``distance`` positive, mm), 0 well outside, a ramp of ``width`` mm in between."""
    ramp = distance * np.float32(1 / width)
    ramp += np.float32(0.5)
    return np.minimum(np.maximum(ramp, 0, out=ramp), 1, out=ramp)


def line(distance: Array, half_width: float) -> Array:
    """Return 1 where ``distance`` (mm) is 0, falling to 0 at ``half_width`` on both sides."""
    return np.maximum(1 - np.abs(distance) * np.float32(1 / half_width), 0)


def blend(image: Array, value: float | Array, share: Array) -> None:
    """Replace a ``share`` (0..1) of ``image`` by ``value``, in place."""
    change = value - image
    change *= share
    image += change


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A slice's regular grid of points, in axes of its own.

    Attributes:
        first: picture coordinates (x, y) of the first point, mm.
        step: distance between points, mm.
        axes: (2, 2) picture vectors of the two own axes.
        a, b: (Y, X) own coordinates of every point, mm.
    """

    first: tuple[float, float]
    step: float
    axes: Array
    a: Array
    b: Array

    @classmethod
    def of(cls, x: Array, y: Array, axes: Array) -> Grid:
        """Lay a grid on picture coordinates ``x`` and ``y`` (mm, equal steps)."""
        a, b = ((x[None, :] * axis[0] + y[:, None] * axis[1]).astype(np.float32) for axis in axes)
        return cls(first=(float(x[0]), float(y[0])), step=float(x[1] - x[0]), axes=axes, a=a, b=b)

    def patch(self, centre: tuple[float, float], reach: float) -> tuple[slice, slice]:
        """Return the rows and columns within ``reach`` mm of ``centre`` (own coordinates); empty outside the grid."""
        parts = []
        for axis, size in enumerate(self.a.shape[::-1]):
            place = centre[0] * float(self.axes[0, axis]) + centre[1] * float(self.axes[1, axis])
            low = max(0, math.floor((place - reach - self.first[axis]) / self.step))
            high = min(size, math.ceil((place + reach - self.first[axis]) / self.step) + 1)
            parts.append(slice(low, max(low, high)))
        return parts[1], parts[0]
