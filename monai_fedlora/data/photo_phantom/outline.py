"""The outline of a skin lesion, with two measures of dermatology: asymmetry and border irregularity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

N_ANGLES = 360
ANGLES = np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """Ranges from which the outlines of a diagnosis are drawn (ours).

    Attributes:
        size: radius of the disc of the same area, in halves of the picture's shorter side.
        elongation: long over short axis.
        lobes: standard deviation of few slow waves of the radius, relative to it; they make a lesion asymmetric.
        ripple: the same of many fast waves; they make the border ragged.
        warp: strength of the distortion of the plane under the outline, relative to the radius.
        bites: smallest and largest number of notches.
        softness: width over which the border fades, relative to the radius.
    """

    size: tuple[float, float]
    elongation: tuple[float, float]
    lobes: tuple[float, float]
    ripple: tuple[float, float]
    warp: tuple[float, float]
    bites: tuple[int, int]
    softness: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed curve around the origin.

    Attributes:
        radius: (N_ANGLES) distance at every angle; the enclosed area is that of the unit disc.
        softness: width over which the border fades.
        warp: strength of the distortion of the plane under the outline.
    """

    radius: Array
    softness: float
    warp: float

    def asymmetry(self) -> float:
        """Return the share of the area, 0..1, that does not overlap with its reflection at the best axis."""
        square = self.radius**2
        index = np.arange(N_ANGLES)
        mirrored = square[(index[:, None] - index) % N_ANGLES]  # at the axis with half the angle of the row
        return float((np.abs(mirrored - square).sum(1) / (2 * square.sum())).min())

    def irregularity(self) -> float:
        """Return the squared perimeter over that of a disc of the same area: 1 for a disc, more for any other."""
        x, y = self.radius * np.cos(ANGLES), self.radius * np.sin(ANGLES)
        perimeter = np.hypot(np.roll(x, -1) - x, np.roll(y, -1) - y).sum()
        area = 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
        return float(perimeter**2 / (4 * np.pi * area))


def draw_outline(habit: Habit, rng: np.random.Generator) -> Outline:
    """Draw an outline from these ranges."""
    elongation = rng.uniform(*habit.elongation)
    turned = ANGLES - rng.uniform(0, np.pi)
    log_radius = -0.5 * np.log(np.cos(turned) ** 2 / elongation + np.sin(turned) ** 2 * elongation)
    log_radius += rng.uniform(*habit.lobes) * _waves(np.arange(2, 5), rng)
    log_radius += rng.uniform(*habit.ripple) * _waves(np.arange(6, 24), rng)
    for _ in range(int(rng.integers(habit.bites[0], habit.bites[1] + 1))):
        away = np.abs((ANGLES - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi) / rng.uniform(0.06, 0.26)
        log_radius -= rng.uniform(0.05, 0.22) * np.maximum(1 - away**2, 0)
    radius = np.exp(log_radius)
    radius /= np.sqrt(np.mean(radius**2))
    return Outline(radius.astype(np.float32), rng.uniform(*habit.softness), rng.uniform(*habit.warp))


def _waves(numbers: Array, rng: np.random.Generator) -> Array:
    """Random waves over the angle, of unit standard deviation; slow ones are stronger."""
    weights = rng.normal(0, 1, (2, len(numbers))) / np.sqrt(numbers)
    waves = weights[0] @ np.cos(numbers[:, None] * ANGLES) + weights[1] @ np.sin(numbers[:, None] * ANGLES)
    return waves / np.std(waves)
