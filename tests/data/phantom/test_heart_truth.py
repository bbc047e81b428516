from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monai_fedlora.data.phantom.anatomy import N_ANGLES, Surfaces, contraction, surfaces
from monai_fedlora.data.phantom.free_heart import draw_free_form, draw_free_heart
from monai_fedlora.data.phantom.free_scanner import draw_scanner
from monai_fedlora.data.phantom.heart_truth import heart_truth
from monai_fedlora.data.phantom.pathology import Heart, draw_heart


def test_a_tube_is_measured_as_its_formulas_say() -> None:
    height = np.tile(np.linspace(-0.1, 1.1, 13), (2, 1))
    inside = ((height >= 0) & (height < 1))[..., None] * np.ones(N_ANGLES)
    radii = np.array([20.0, 10.0])[:, None, None] * inside
    walls = np.array([10.0, 15.0])[:, None, None] * inside
    walls[0, :, 100:180] += 6 * inside[0, :, 100:180]
    rv = radii + walls + np.array([12.0, 8.0])[:, None, None] * inside
    truth = heart_truth(Surfaces(endo=radii, epi=radii + walls, rv=rv, rv_inner=radii + walls, height=height), 8.0)
    slices = int(inside[0, :, 0].sum())
    assert truth["lv_ed_ml"] == pytest.approx(np.pi * 400 * 8 * slices / 1000)
    assert truth["lv_ejection_percent"] == pytest.approx(75)
    assert truth["myo_ed_ml"] == pytest.approx(((280 * 500 + 80 * 896) / 360) * np.pi * 8 * slices / 1000)
    assert truth["rv_es_ml"] == pytest.approx(np.pi * (33**2 - 25**2) * 8 * slices / 1000)
    assert truth["wall_largest_mm"] == pytest.approx(16) and truth["wall_mean_mm"] == pytest.approx(10 + 6 * 80 / 360)


def test_a_free_heart_has_the_volumes_that_were_drawn() -> None:
    """Also where the RV reaches above the LV."""
    above = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        heart = draw_free_heart(draw_scanner(rng), rng)
        cut = surfaces(heart, np.arange(-10, 45) * 3.0, contraction(2), 3.0, draw_free_form(heart, rng))
        truth = heart_truth(cut, 3.0)
        above += int((cut.rv > cut.rv_inner)[cut.height < 0].any())
        assert truth["lv_ed_ml"] == pytest.approx(heart.lv_volume)
        assert truth["rv_ed_ml"] == pytest.approx(heart.rv_volume)
        assert truth["lv_ejection_percent"] == pytest.approx(100 * heart.lv_ejection)
        assert truth["rv_ejection_percent"] == pytest.approx(100 * heart.rv_ejection)
    assert above > 0


def reach(heart: Heart, seed: int) -> float:
    """Height, 0 at the base and 1 at the apex, to which the RV has more than a tenth of its largest area."""
    form = draw_free_form(heart, np.random.default_rng(seed))
    cut = surfaces(heart, np.arange(-5, 60) * 2.0, contraction(2), 2.0, form)
    area = (cut.rv[0] ** 2 - cut.rv_inner[0] ** 2).sum(-1)
    return float(cut.height[0][area > 0.1 * area.max()].max())


def test_a_dilated_right_ventricle_reaches_the_apex() -> None:
    rng = np.random.default_rng(0)
    heart = draw_heart("NOR", draw_scanner(rng), rng)
    normal = [reach(heart, seed) for seed in range(7)]
    wide = [reach(replace(heart, rv_volume=180 * heart.surface), seed) for seed in range(7)]
    assert 0.7 < np.median(normal) < 0.9 and max(wide) < 1
    assert np.median(wide) > np.median(normal) + 0.04 and np.median(wide) > 0.85
