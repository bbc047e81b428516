from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from monai_fedlora.data.phantom.acquisition import acquire, coil_sensitivity, field_of_view, orient, store
from monai_fedlora.data.phantom.vendors import VENDORS


def vendor(**changes):
    plain = {"noise": 0.0, "acquired": 1.0, "apodisation": 0.0, "gamma": 1.0, "scale": 100.0, "circular": False}
    return dataclasses.replace(VENDORS["A"], **(plain | changes))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_full_k_space_without_noise_gives_the_signal_back() -> None:
    signal = rng().random((2, 3, 20, 18), dtype=np.float32)
    np.testing.assert_allclose(acquire(signal, vendor(), rng()), signal, atol=1e-6)


@pytest.mark.parametrize(("acquired", "apodisation"), [(1.0, 0.0), (0.6, 0.8)])
def test_air_has_the_rayleigh_distribution_and_tissue_the_rician_mean(acquired, apodisation) -> None:
    machine = vendor(noise=0.05, acquired=acquired, apodisation=apodisation)
    air = acquire(np.zeros((6, 96, 96), np.float32), machine, rng())
    assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.03)
    assert air.std() == pytest.approx(0.05 * np.sqrt(2 - np.pi / 2), rel=0.03)
    tissue = acquire(np.full((6, 96, 96), 0.5, np.float32), machine, rng())
    assert (tissue**2).mean() == pytest.approx(0.5**2 + 2 * 0.05**2, rel=0.01)


def test_a_sharp_cut_overshoots_by_gibbs_nine_percent_and_a_taper_does_not() -> None:
    step = np.zeros((128, 128), np.float32)
    step[:, 32:96] = 1
    assert acquire(step, vendor(acquired=0.5), rng()).max() - 1 == pytest.approx(0.09, abs=0.03)
    assert acquire(step, vendor(acquired=0.5, apodisation=1.0), rng()).max() - 1 < 0.015


def test_the_coil_is_normalised_at_the_heart_and_falls_off() -> None:
    machine = VENDORS["C"]
    depth = np.array([0.0, 60.0, 200.0], np.float32)
    gain = coil_sensitivity(depth, 60.0, machine)
    assert gain[1] == pytest.approx(1) and (np.diff(gain) < 0).all()


def test_storing_scales_bends_and_rounds() -> None:
    magnitude = np.array([[0, 0.25], [1, 400]], np.float32)
    stored = store(magnitude, vendor(gamma=0.5))
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored, [[0, 50], [100, 2000]])
    assert store(magnitude, vendor(scale=1000.0)).max() == 32767


def test_a_circular_field_of_view_is_black_in_the_corners_only() -> None:
    stored = store(np.ones((21, 21), np.float32), vendor(circular=True))
    assert stored[0, 0] == stored[-1, -1] == 0 and stored[10, 0] == stored[10, 20] == stored[0, 10] == 100


def test_orientation_turns_and_mirrors_the_last_two_axes() -> None:
    picture = np.arange(6).reshape(1, 2, 3)
    turned = orient(picture, vendor(quarter_turns=1))
    np.testing.assert_array_equal(turned[0], [[2, 5], [1, 4], [0, 3]])
    mirrored = orient(picture, vendor(mirrored=True))
    np.testing.assert_array_equal(mirrored[0], [[2, 1, 0], [5, 4, 3]])


def test_the_field_of_view_fades_at_its_border_only() -> None:
    window = field_of_view(16, 12)
    assert window.shape == (16, 12) and window[8, 6] == 1 and 0 < window[0, 6] < 0.2
