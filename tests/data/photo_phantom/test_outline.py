from __future__ import annotations

import math

import numpy as np
import pytest

from monai_fedlora.data.photo_phantom.lesions import DIAGNOSES
from monai_fedlora.data.photo_phantom.outline import ANGLES, Outline, draw_outline


def outline(radius: np.ndarray) -> Outline:
    return Outline(radius / np.sqrt(np.mean(radius**2)), 0.1, 0.0)


def test_a_disc_is_symmetric_and_regular() -> None:
    disc = outline(np.ones(len(ANGLES)))
    assert disc.asymmetry() == 0
    assert disc.irregularity() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("ratio", [1.3, 2.0])
def test_an_ellipse_is_symmetric_and_as_irregular_as_its_perimeter_says(ratio) -> None:
    for turn in (0.0, math.pi / 3):
        shape = outline(1 / np.sqrt(np.cos(ANGLES - turn) ** 2 / ratio + np.sin(ANGLES - turn) ** 2 * ratio))
        a, b = math.sqrt(ratio), 1 / math.sqrt(ratio)
        perimeter = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))  # Ramanujan
        assert shape.asymmetry() == pytest.approx(0, abs=0.01)
        assert shape.irregularity() == pytest.approx(perimeter**2 / (4 * math.pi**2), rel=2e-3)


def test_one_sided_lobes_are_asymmetric() -> None:
    lobed = np.sqrt(1 + 0.3 * np.sin(ANGLES) + 0.3 * np.sin(2 * ANGLES) + 0.2 * np.cos(3 * ANGLES + 1))
    mirrored = outline(np.sqrt(1 + 0.3 * np.cos(ANGLES) + 0.3 * np.cos(2 * ANGLES)))
    assert mirrored.asymmetry() == pytest.approx(0, abs=1e-6)
    assert outline(lobed).asymmetry() > 0.05


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_every_outline_encloses_the_unit_area_within_its_habit(diagnosis) -> None:
    habit = DIAGNOSES[diagnosis].habit
    for seed in range(20):
        drawn = draw_outline(habit, np.random.default_rng(seed))
        assert 0.5 * np.sum(drawn.radius**2) * ANGLES[1] == pytest.approx(math.pi, rel=1e-3)
        assert drawn.radius.min() > 0.2
        assert habit.softness[0] <= drawn.softness <= habit.softness[1]


def test_moles_are_rounder_than_melanomas_and_keratoses_are_bitten() -> None:
    def mean(diagnosis: str, number: str) -> float:
        drawn = [draw_outline(DIAGNOSES[diagnosis].habit, np.random.default_rng(seed)) for seed in range(25)]
        return float(np.mean([getattr(shape, number)() for shape in drawn]))

    assert mean("MEL", "asymmetry") > 1.8 * mean("NV", "asymmetry")
    assert mean("MEL", "irregularity") > mean("NV", "irregularity") + 0.05
    assert mean("BKL", "irregularity") > mean("NV", "irregularity") + 0.05
