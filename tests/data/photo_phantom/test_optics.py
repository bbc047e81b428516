from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_fedlora.data.photo_phantom.optics import Optics, blur_matrix, develop, encode

PLAIN = Optics(exposure=0, drift=0, blur=0, noise=0)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((3, 24, 32), dtype=np.float32)


def test_a_camera_without_faults_stores_the_colours(picture) -> None:
    pixels = develop(picture.copy(), np.ones((24, 32), np.float32), PLAIN, np.random.default_rng(1))
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, 255 * picture.transpose(1, 2, 0), atol=0.51)


def test_light_and_white_balance_are_factors_and_gamma_an_exponent(picture) -> None:
    optics = Optics(gain=(1.0, 0.5, 0.8), gamma=1.3, exposure=0, drift=0, blur=0, noise=0)
    light = np.linspace(0.2, 1, 32, dtype=np.float32)[None].repeat(24, 0)
    pixels = develop(picture.copy(), light, optics, np.random.default_rng(1))
    expected = (picture * light * np.array([1.0, 0.5, 0.8])[:, None, None]) ** 1.3
    np.testing.assert_allclose(pixels, 255 * expected.transpose(1, 2, 0), atol=0.52)


def test_no_saturation_is_grey_and_contrast_keeps_the_ends() -> None:
    picture = np.stack([np.full((8, 8), value, np.float32) for value in (0.0, 0.3, 1.0)])
    grey = Optics(saturation=0, exposure=0, drift=0, blur=0, noise=0)
    assert np.ptp(develop(picture.copy(), np.ones((8, 8), np.float32), grey, np.random.default_rng(0))) == 0
    bent = Optics(contrast=1, exposure=0, drift=0, blur=0, noise=0)
    pixels = develop(picture.copy(), np.ones((8, 8), np.float32), bent, np.random.default_rng(0))
    assert pixels[0, 0].tolist() == [0, round(255 * (3 * 0.3**2 - 2 * 0.3**3)), 255]


def test_noise_is_as_strong_as_stated_at_full_brightness() -> None:
    optics = Optics(exposure=0, drift=0, blur=0, noise=0.02)
    pixels = develop(
        np.full((3, 64, 64), 0.8, np.float32), np.ones((64, 64), np.float32), optics, np.random.default_rng(0)
    )
    assert pixels.std() == pytest.approx(255 * 0.02 * 0.9, rel=0.05)


@pytest.mark.parametrize("sigma", [0.3, 1.1])
def test_the_blur_is_a_gaussian_that_repeats_the_edge(sigma, picture) -> None:
    ours = blur_matrix(24, sigma) @ picture[0] @ blur_matrix(32, sigma).T
    np.testing.assert_allclose(ours, ndimage.gaussian_filter(picture[0], sigma, mode="nearest", truncate=9), atol=2e-4)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_holds_the_pixels(suffix) -> None:
    y, x = np.mgrid[:24, :32]
    pixels = np.stack([y * 5, x * 4, y + x], -1).astype(np.uint8)
    file = encode(pixels, PLAIN, suffix)
    assert file == encode(pixels, PLAIN, suffix)
    read = np.asarray(Image.open(io.BytesIO(file)))
    np.testing.assert_allclose(read.astype(int), pixels, atol=0 if suffix == ".png" else 12)
