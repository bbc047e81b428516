from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.photo_phantom.tissue import BLOOD, MELANIN, Layers, Palette, colour

PALETTE = Palette(base=(0.9, 0.8, 0.7))


def test_bare_tissue_has_the_colour_of_its_base() -> None:
    np.testing.assert_allclose(colour(Layers.empty((2, 3)), PALETTE)[:, 1, 2], PALETTE.base, rtol=1e-6)


def test_pigments_weaken_light_by_the_sum_of_their_densities() -> None:
    layers = Layers.empty((4, 4))
    layers.add(melanin=0.7, blood=np.full((4, 4), 0.3))
    expected = np.array(PALETTE.base) * np.exp(-0.7 * MELANIN - 0.3 * BLOOD)
    np.testing.assert_allclose(colour(layers, PALETTE)[:, 0, 0], expected, rtol=1e-5)


def test_melanin_makes_brown_and_blood_makes_red() -> None:
    assert MELANIN[0] < MELANIN[1] < MELANIN[2] and BLOOD[0] < BLOOD[2] < BLOOD[1]
    assert BLOOD[0] / BLOOD[1] < MELANIN[0] / MELANIN[1]


@pytest.mark.parametrize("name", ["blue", "horn", "white"])
def test_a_whole_cover_hides_what_is_below_and_half_of_it_half(name) -> None:
    layers = Layers.empty((1, 3))
    layers.add(melanin=1.0)
    bare = colour(layers, PALETTE)[:, 0, 0]
    layers.at_least(**{name: np.array([[0, 0.5, 1]])})
    picture = colour(layers, PALETTE)
    np.testing.assert_allclose(picture[:, 0, 2], getattr(PALETTE, name), rtol=1e-5)
    np.testing.assert_allclose(picture[:, 0, 1], (bare + getattr(PALETTE, name)) / 2, rtol=1e-5)


def test_a_window_draws_on_the_whole() -> None:
    layers = Layers.empty((6, 6))
    window = layers.window(slice(1, 3), slice(4, 6))
    window.add(blood=2.0)
    window.at_least(blood=1.0)
    assert layers.blood.sum() == 8 and layers.blood[1:3, 4:6].min() == 2
