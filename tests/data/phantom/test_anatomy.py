from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from monai_fedlora.data.phantom.anatomy import (
    ANGLES,
    N_ANGLES,
    contraction,
    draw_form,
    heart_length,
    surfaces,
    systolic_frame,
)
from monai_fedlora.data.phantom.pathology import draw_heart
from monai_fedlora.data.phantom.vendors import VENDORS

DISTANCE = 10.0


def cut(group: str, seed: int = 0, **changes):
    heart = dataclasses.replace(draw_heart(group, VENDORS["A"], np.random.default_rng(seed)), **changes)
    z = (np.arange(12) + 0.5) * DISTANCE
    form = draw_form(heart, np.random.default_rng(seed))
    return heart, surfaces(heart, z, np.array([0.0, 0.4, 1.0]), DISTANCE, form)


def sum_of_polygons(radius: np.ndarray) -> float:
    """Volume in mL inside radii (S, N_ANGLES), by the shoelace formula."""
    x, y = radius * np.cos(ANGLES), radius * np.sin(ANGLES)
    area = 0.5 * np.abs((x * np.roll(y, -1, -1) - y * np.roll(x, -1, -1)).sum(-1))
    return float(area.sum()) * DISTANCE / 1000


@pytest.mark.parametrize("group", ["NOR", "MINF", "DCM", "HCM", "RV"])
def test_polygon_volumes_follow_the_ejection_fraction_and_keep_the_muscle(group) -> None:
    heart, borders = cut(group)
    inside = [sum_of_polygons(frame) for frame in borders.endo]
    muscle = [sum_of_polygons(outer) - hole for outer, hole in zip(borders.epi, inside, strict=True)]
    right = [sum_of_polygons(rv) - sum_of_polygons(epi) for rv, epi in zip(borders.rv, borders.epi, strict=True)]
    amounts = np.array([0, 0.4, 1])
    np.testing.assert_allclose(inside, heart.lv_volume * (1 - heart.lv_ejection * amounts), rtol=5e-3)
    np.testing.assert_allclose(right, heart.rv_volume * (1 - heart.rv_ejection * amounts), rtol=2e-2)
    np.testing.assert_allclose(muscle, muscle[0], rtol=5e-3)


def test_borders_are_nested_and_vanish_outside_the_heart() -> None:
    heart, borders = cut("HCM")
    assert (borders.endo <= borders.epi + 1e-9).all() and (borders.epi <= borders.rv + 1e-9).all()
    outside = (borders.height < 0) | (borders.height >= 1)
    assert outside.any() and not borders.epi[outside].any()
    assert borders.height[0, 0] == pytest.approx(5 / heart_length(heart))


def test_rings_shrink_towards_the_apex() -> None:
    _, borders = cut("NOR")
    widths = borders.epi[0].mean(-1)
    below = np.flatnonzero(widths)[2:]
    assert (np.diff(widths[below]) < 0).all()


def test_an_infarcted_wall_is_thin_and_stands_still() -> None:
    heart, borders = cut("MINF", shortening=0.0)
    level = int(np.argmin(np.abs(borders.height[0] - heart.scar.height)))
    at = np.argmin(np.abs(ANGLES - heart.scar.angle))
    across = (at + N_ANGLES // 2) % N_ANGLES
    wall = borders.epi[0, level] - borders.endo[0, level]
    assert wall[at] < 0.7 * wall[across]
    moved = 1 - borders.endo[2, level] / borders.endo[0, level]
    assert moved[at] < 0.05 < moved[across]


def test_several_segments_of_a_hypertrophic_heart_exceed_15_mm() -> None:
    heart, borders = cut("HCM")
    level = int(np.argmin(np.abs(borders.height[0] - heart.thick.height)))
    wall = (borders.epi[0, level] - borders.endo[0, level]).reshape(6, -1).mean(-1)
    assert (wall > 15).sum() >= 2


def test_an_overloaded_right_ventricle_flattens_the_septum() -> None:
    _, round_heart = cut("RV", flattening=0.0)
    _, flat_heart = cut("RV", flattening=0.8)
    septum = np.abs(ANGLES) < 0.3
    assert flat_heart.endo[0, 3, septum].mean() < 0.9 * round_heart.endo[0, 3, septum].mean()


@pytest.mark.parametrize("frames", [2, 3, 12, 25, 30])
def test_a_beat_starts_relaxed_and_contracts_fully_once(frames) -> None:
    curve = contraction(frames)
    assert len(curve) == frames and curve[0] == 0
    assert int(np.argmax(curve)) == systolic_frame(frames) and curve.max() == 1
    assert ((curve >= 0) & (curve <= 1)).all()
