from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
from monai_fedlora.data.photo_phantom.dermoscopy import make_dermoscopy
from monai_fedlora.data.photo_phantom.lesions import CLASSES
from monai_fedlora.errors import ConfigError


@pytest.mark.parametrize("code", DERMATOSCOPES)
def test_a_picture_is_the_same_every_time(code, lesion) -> None:
    first = lesion("MEL", code)
    again = make_dermoscopy("MEL", DERMATOSCOPES[code], (3, 0))
    assert first.pixels.tobytes() == again.pixels.tobytes() and first.signs == again.signs


def test_another_shot_shows_the_same_lesion_otherwise(lesion) -> None:
    first, second = lesion("MEL"), lesion("MEL", shot=1)
    assert first.signs == second.signs and first.age == second.age
    np.testing.assert_array_equal(first.outline.radius, second.outline.radius)
    assert first.mask.sum() == pytest.approx(second.mask.sum(), rel=0.5)
    assert (first.mask != second.mask).any() and (first.pixels != second.pixels).mean() > 0.5


def test_another_seed_shows_another_lesion(lesion) -> None:
    assert (lesion("NV").outline.radius != lesion("NV", seed=1).outline.radius).any()


@pytest.mark.parametrize("size", [48, 120])
def test_the_shorter_side_is_as_asked_for_and_the_other_the_cameras(size) -> None:
    for camera in DERMATOSCOPES.values():
        pixels = make_dermoscopy("NV", camera, 0, size=size).pixels
        assert pixels.dtype == np.uint8 and pixels.shape == (size, round(size * camera.aspect), 3)


def test_a_larger_picture_shows_the_same_lesion() -> None:
    small, large = (make_dermoscopy("BKL", DERMATOSCOPES["D"], 4, size=size) for size in (60, 180))
    assert small.signs == large.signs
    assert small.mask.mean() == pytest.approx(large.mask.mean(), rel=0.05)
    shrunk = large.pixels.reshape(60, 3, 80, 3, 3).mean((1, 3))
    assert np.corrcoef(small.pixels.mean(2).ravel(), shrunk.mean(2).ravel())[0, 1] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("diagnosis", CLASSES)
def test_pictures_use_their_range_and_the_lesion_is_in_the_middle(diagnosis, lesion) -> None:
    for code in DERMATOSCOPES:
        picture = lesion(diagnosis, code)
        assert np.ptp(picture.pixels) > 90 and picture.pixels.mean() > 30
        height, width = picture.mask.shape
        centre = np.argwhere(picture.mask).mean(0) / (height, width)
        assert picture.mask.mean() > 0.01 and np.abs(centre - 0.5).max() < 0.25


def test_only_round_fields_have_black_corners(lesion) -> None:
    for code, camera in DERMATOSCOPES.items():
        pixels = lesion("NV", code).pixels
        corners = np.stack([pixels[y, x] for y in (0, -1) for x in (0, -1)])
        assert (corners.max() < 40) == (camera.rim > 0)


@pytest.mark.slow
def test_cameras_colour_the_same_skin_differently() -> None:
    def skin(code: str) -> np.ndarray:
        pictures = [make_dermoscopy("NV", DERMATOSCOPES[code], seed) for seed in range(5)]
        return np.median([np.median(picture.pixels[~picture.mask], 0) for picture in pictures], 0)

    colours = {code: skin(code) for code in DERMATOSCOPES}
    red_over_green = {code: colour[0] / colour[1] for code, colour in colours.items()}
    assert max(red_over_green, key=red_over_green.__getitem__) in ("B", "E")
    assert colours["E"].mean() < 0.8 * colours["F"].mean()
    assert min(np.abs(colours[a] - colours[b]).max() for a in colours for b in colours if a < b) > 4


def test_the_referral_is_as_documented() -> None:
    demo = ("NV", "MEL", "BKL", "VASC")
    missing = {code: [name for name in demo if not camera.shares[name]] for code, camera in DERMATOSCOPES.items()}
    assert missing == {"A": [], "B": [], "C": [], "D": ["VASC"], "E": ["MEL"], "F": ["BKL"]}
    assert [camera.centre for camera in DERMATOSCOPES.values()] == list(range(6))
    shares = np.array([[camera.shares[name] for name in demo] for camera in DERMATOSCOPES.values()])
    shares = shares / shares.sum(1, keepdims=True)
    assert np.abs(shares[:, None] - shares[None]).sum(-1).max() > 1  # total variation above a half
    assert all(any(camera.shares[name] for camera in DERMATOSCOPES.values()) for name in CLASSES)


@pytest.mark.parametrize(("diagnosis", "size"), [("UNK", 120), ("NV", 31)])
def test_impossible_wishes_are_refused(diagnosis, size) -> None:
    with pytest.raises(ConfigError):
        make_dermoscopy(diagnosis, DERMATOSCOPES["A"], 0, size=size)
