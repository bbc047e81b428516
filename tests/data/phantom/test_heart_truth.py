from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.phantom.anatomy import N_ANGLES, Surfaces, contraction, surfaces
from monai_fedlora.data.phantom.free_heart import draw_free_form, draw_free_heart
from monai_fedlora.data.phantom.free_scanner import draw_scanner
from monai_fedlora.data.phantom.heart_truth import heart_truth


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
