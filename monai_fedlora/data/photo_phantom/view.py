"""Coordinates of a lesion in a picture, and drawing functions in these coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from monai_fedlora.data.photo_phantom import strokes, texture
from monai_fedlora.data.photo_phantom.outline import N_ANGLES, Outline
from monai_fedlora.data.photo_phantom.tissue import Layers

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Position, size and rotation of a lesion in a picture.

    Attributes:
        centre: x and y, pixels.
        radius: radius of the disc with the lesion's area, pixels.
        turn: rotation, radians.
        size: ``radius`` in halves of the picture's shorter side, without the zoom of this picture. Structures of fixed
            size, such as the holes of a pigment network, are scaled by it.
    """

    centre: tuple[float, float]
    radius: float
    turn: float
    size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of a picture with a lesion and its surroundings; lengths are in radii of the lesion.

    Attributes:
        u, v: coordinates; the lesion's centre is the origin.
        rho: distance from the origin in the distorted plane.
        inside: distance to the distorted outline along the ray from the origin, positive inside.
        outline: the outline.
        layers: the layers of this part of the picture.
        pose: position of the lesion.
        corner: first column and row of this part, pixels.
    """

    u: Array
    v: Array
    rho: Array
    inside: Array
    outline: Outline
    layers: Layers
    pose: Pose
    corner: tuple[int, int]

    @classmethod
    def of(cls, layers: Layers, outline: Outline, pose: Pose, rng: np.random.Generator) -> View:
        """Return the view of a lesion and its surroundings; ``rng`` is the source of the outline's distortion."""
        height, width = layers.melanin.shape
        extent = 1.35 * float(outline.radius.max()) * pose.radius
        bounds = []
        for middle, size in zip(pose.centre, (width, height), strict=True):
            low = int(np.clip(math.floor(middle - extent), 0, size - 2))
            bounds.append((low, int(np.clip(math.ceil(middle + extent) + 1, low + 2, size))))
        (left, right), (top, bottom) = bounds
        x, y = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
        u, v = _own(x, y, pose)
        part = layers.window(slice(top, bottom), slice(left, right))
        flat = cls(u=u, v=v, rho=u, inside=u, outline=outline, layers=part, pose=pose, corner=(left, top))
        bent_u, bent_v = (
            axis + np.float32(outline.warp) * (flat.noise(rng, 1.7) + 0.4 * flat.noise(rng, 5.5)) for axis in (u, v)
        )
        rho = np.sqrt(bent_u * bent_u + bent_v * bent_v)
        bins = np.rint(np.arctan2(bent_v, bent_u) * np.float32(N_ANGLES / (2 * np.pi))).astype(np.int32) % N_ANGLES
        inside = outline.radius[bins] - rho
        inside += np.float32(0.16 * outline.softness) * flat.noise(rng, 8)
        return replace(flat, rho=rho, inside=inside)

    def fade(self, softness: float | None = None, shift: float = 0.0) -> Array:
        """Return 1 well inside and 0 well outside the outline, a smooth step of the given width in between."""
        width = self.outline.softness if softness is None else softness
        width = max(width, 1.2 / self.pose.radius)
        step = np.clip((self.inside + np.float32(shift)) * np.float32(1 / width) + np.float32(0.5), 0, 1)
        return step * step * (3 - 2 * step)

    def noise(self, rng: np.random.Generator, frequency: float) -> Array:
        """Return smooth random values, ``frequency`` per radius; slow ones are computed on a coarser grid."""
        stride = int(np.clip(self.pose.radius / frequency / 4, 1, 6))
        if stride == 1:
            return texture.noise(rng, self.u, self.v, frequency)
        height, width = self.u.shape
        x, y = (texture.coarse(size, stride) + low for size, low in zip((width, height), self.corner, strict=True))
        field = texture.noise(rng, *_own(x, y, self.pose), frequency)
        return texture.stretch(height, stride) @ field @ texture.stretch(width, stride).T

    def mesh(self, rng: np.random.Generator, frequency: float, warp: float) -> Array:
        """Return a honeycomb of lines with ``frequency`` holes per radius, distorted by ``warp`` widths of a hole."""
        bend = np.float32(warp / frequency)
        u, v = (
            axis + bend * (self.noise(rng, frequency / 4) + 0.5 * self.noise(rng, frequency / 1.6))
            for axis in (self.u, self.v)
        )
        return texture.mesh(rng, u, v, frequency)

    def patch(self, rng: np.random.Generator, frequency: float, threshold: float, sharp: float = 2.0) -> Array:
        """Return 0..1 random patches; a higher threshold leaves fewer."""
        field = self.noise(rng, frequency) + np.float32(0.3) * self.noise(rng, 3.7 * frequency)
        return np.clip((field - threshold) * sharp, 0, 1)

    def bump(self, centre: Array, radius: float) -> Array:
        """Return a soft disc, 1 in its middle."""
        square = ((self.u - centre[0]) ** 2 + (self.v - centre[1]) ** 2) / np.float32(radius * radius)
        return np.exp(-0.7 * square * square)

    def per_radius(self, per_half: float) -> float:
        """Turn a frequency per half of the picture's shorter side into one per radius."""
        return per_half * self.pose.size

    def length(self, in_halves: float) -> float:
        """Turn a length in halves of the picture's shorter side into radii."""
        return in_halves / self.pose.size

    def pixels(self, points: Array) -> Array:
        """Return the pixel coordinates (x, y) in this part of points (..., 2)."""
        cos, sin = math.cos(self.pose.turn), math.sin(self.pose.turn)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        return turned * self.pose.radius + (np.array(self.pose.centre) - self.corner)

    def spots(self, points: Array, radius: ArrayLike, weight: ArrayLike = 1.0) -> Array:
        """Return 0..1 round spots of these radii."""
        place = self.pixels(points)
        sigma = np.broadcast_to(np.asarray(radius) * (self.pose.radius / 1.5), len(points))
        spots = strokes.dots(self.u.shape, place[..., 0], place[..., 1], sigma, np.multiply(weight, 1.7))
        return np.minimum(spots, 1)

    def lines(self, nodes: Array, width: ArrayLike, weight: ArrayLike = 1.0) -> Array:
        """Return 0..1 lines through nodes (B, N, 2) of these widths."""
        sigma = np.asarray(width) * (self.pose.radius / 2.4)
        return np.minimum(strokes.lines(self.u.shape, self.pixels(nodes), sigma, weight), 1)


def _own(x: Array, y: Array, pose: Pose) -> tuple[Array, Array]:
    """Return the lesion's coordinates of the pixels in columns ``x`` and rows ``y``."""
    across = (x - np.float32(pose.centre[0])) / np.float32(pose.radius)
    down = (y - np.float32(pose.centre[1]))[:, None] / np.float32(pose.radius)
    cos, sin = np.float32(math.cos(pose.turn)), np.float32(math.sin(pose.turn))
    return cos * across + sin * down, cos * down - sin * across


def scatter(rng: np.random.Generator, outline: Outline, count: int, near: float = 0.0, far: float = 0.9) -> Array:
    """Return random points (count, 2) between two parts of the way from the origin to the outline."""
    angles = rng.uniform(0, 2 * np.pi, count)
    reach = outline.radius[(angles * (N_ANGLES / (2 * np.pi))).astype(int) % N_ANGLES]
    way = np.sqrt(rng.uniform(near * near, far * far, count)) * reach
    return np.stack([way * np.cos(angles), way * np.sin(angles)], -1)
