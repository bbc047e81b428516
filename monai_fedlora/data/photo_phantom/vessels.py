"""The vessels of a retina as lines: four arcades of an artery and a vein each, their branches, and new vessels.

Coordinates are in retina units (1 is 22.5 degrees) with the fovea at the origin and the disc at :data:`DISC`; y points
down, as in a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.photo_phantom.strokes import Array, wander

DISC = np.array([0.68, -0.04])
"""Middle of the optic disc."""

_FOVEA = np.zeros(2)
_STEPS = 26  # nodes of an arcade
_SIDES = ((-1, -1), (-1, 1), (1, -1), (1, 1))  # temporal, nasal; upper, lower


@dataclass(frozen=True, slots=True)
class Vessels:
    """Lines with the same number of nodes.

    Attributes:
        nodes: (B, N, 2) positions.
        width: (B, N) diameters, retina units.
        blood: (B, N) density of blood on the line.
    """

    nodes: Array
    width: Array
    blood: Array


def draw_tree(rng: np.random.Generator, *, beading: float) -> list[Vessels]:
    """Draw the vessels of an eye, the widest first.

    Args:
        rng: source of all bends and branches.
        beading: relative variation of the veins' diameter along their course; 0 for healthy veins.
    """
    arcades, widths, bloods = [], [], []
    for side, up in _SIDES:
        far = rng.uniform(0.42, 0.62)
        for vein in (0, 1):
            arcades.append(_arcade(side, up, far + 0.09 * (vein - 0.5) + rng.normal(0, 0.02), rng))
            thin = np.linspace(1, 0.55, _STEPS) * (1.0 if side < 0 else 0.8)
            if vein:
                beads = np.sin(np.linspace(0, rng.uniform(50, 70), _STEPS) + rng.uniform(0, 6))
                thin = thin * (1 + beading * beads * (np.arange(_STEPS) > 4))
            widths.append((0.040 if vein else 0.030) * rng.uniform(0.85, 1.15) * thin)
            bloods.append(np.full(_STEPS, 0.85 if vein else 0.55))
    nodes, width, blood = (np.array(part) for part in (arcades, widths, bloods))
    tree = [Vessels(nodes, width, blood)]
    for count, length, share, steps in ((6, (0.22, 0.62), 0.62, 10), (3, (0.10, 0.30), 0.62, 7)):
        tree.append(_branches(tree[-1], count, length, share, steps, rng))
    return tree


def avascular(points: Array) -> Array:
    """Return the density of vessels, which is 0 at the fovea and 1 further out."""
    return np.clip((np.hypot(points[..., 0], points[..., 1]) - 0.10) / 0.14, 0, 1)


def frond(rng: np.random.Generator, place: Array, size: float, *, count: int) -> Vessels:
    """Draw new vessels: fine loops that spread from one point.

    Args:
        rng: source of the loops.
        place: (2) their common origin, retina units.
        size: length of the longest, retina units.
        count: number of loops.
    """
    heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.9, 1.9, count)
    nodes = wander(
        rng,
        start=place + rng.normal(0, 0.015, (count, 2)),
        heading=heading,
        length=size * rng.uniform(0.6, 1.6, count),
        nodes=18,
        curl=4.5,
    )
    return Vessels(nodes, np.full((count, 1), 0.015), np.full((count, 1), 0.6))


def _arcade(side: int, up: int, far: float, rng: np.random.Generator) -> Array:
    """One arcade from the disc to the rim, a cubic curve with a slow wave on it: (N, 2)."""
    root = _at(DISC, 0.04 + 0.03 * side + rng.uniform(-0.035, 0.035), 0)
    if side < 0:
        points = [
            root,
            _at(root, rng.uniform(-0.06, 0.02), rng.uniform(0.3, 0.42) * up),
            _at(_FOVEA, rng.uniform(-0.05, 0.15), (far + 0.10) * up),
            _at(_FOVEA, -1.25, rng.uniform(0.25, 0.75) * up),
        ]
    else:
        points = [
            root,
            _at(root, rng.uniform(0.04, 0.12), rng.uniform(0.12, 0.28) * up),
            _at(DISC, 0.35, rng.uniform(0.25, 0.5) * up),
            _at(DISC, 0.85, rng.uniform(0.4, 0.95) * up),
        ]
    t = np.linspace(0, 1, _STEPS)[:, None]
    weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
    path = sum(weight * point for weight, point in zip(weights, points, strict=True))
    wave = rng.normal(0, 0.014) * np.sin(rng.uniform(8, 16) * t + rng.uniform(0, 6))
    return path + np.concatenate([wave, -wave * side * up], 1) * np.minimum(4 * t, 1)


def _at(origin: Array, right: float, down: float) -> Array:
    return origin + np.array([right, down])


def _branches(
    stems: Vessels, count: int, length: tuple[float, float], share: float, steps: int, rng: np.random.Generator
) -> Vessels:
    """Add ``count`` branches to every vessel, to alternating sides."""
    lines, nodes = stems.nodes.shape[:2]
    at = np.sort(rng.uniform(0.14, 0.95, (lines, count)), 1)
    index = np.minimum((at * (nodes - 1)).astype(int), nodes - 2)
    row = np.arange(lines)[:, None]
    root, ahead = stems.nodes[row, index], stems.nodes[row, index + 1]
    forward = np.arctan2(ahead[..., 1] - root[..., 1], ahead[..., 0] - root[..., 0])
    side = (-1.0) ** (np.arange(count) + rng.integers(0, 2, (lines, 1)))
    heading = forward + side * rng.uniform(0.5, 1.15, (lines, count))
    total = lines * count
    drawn = wander(
        rng,
        start=root.reshape(total, 2),
        heading=heading.ravel(),
        length=rng.uniform(*length, total),
        nodes=steps,
        curl=0.7,
    )
    width = (stems.width[row, index] * share).reshape(total, 1) * np.linspace(1, 0.6, steps)
    blood = 0.9 * stems.blood[row, index].reshape(total, 1) * avascular(drawn)
    return Vessels(drawn, width, blood)
