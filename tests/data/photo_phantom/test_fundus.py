from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from monai_fedlora.data.photo_phantom.fundus import make_fundus
from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS
from monai_fedlora.data.photo_phantom.retina import Window, draw_eye, draw_retina
from monai_fedlora.data.photo_phantom.retinopathy import GRADES, draw_findings
from monai_fedlora.data.photo_phantom.tissue import Layers
from monai_fedlora.data.photo_phantom.vessels import DISC
from monai_fedlora.data.readers import feddrg
from monai_fedlora.errors import ConfigError

WINDOW = Window(shape=(140, 140), scale=67.0, centre=np.zeros(2), turn=0.0, left=False)


def layers_of(grade: str, seed: int, **changes) -> Layers:
    """The layers of a retina whose findings are changed as told; its beading is left out, so the vessels stay."""
    findings = draw_findings(grade, WINDOW.centre, 0.9, np.random.default_rng(seed))
    layers = Layers.empty(WINDOW.shape)
    eye = draw_eye(0.6, np.random.default_rng(1))
    draw_retina(layers, eye, replace(findings, beading=0.0, **changes), WINDOW, np.random.default_rng(2))
    return layers


@pytest.mark.parametrize("code", FUNDUS_CAMERAS)
def test_a_picture_is_the_same_every_time(code, eye) -> None:
    again = make_fundus("pdr", FUNDUS_CAMERAS[code], (3, 0))
    assert eye("pdr", code).pixels.tobytes() == again.pixels.tobytes()


def test_pixels_and_grid_are_inverse() -> None:
    for left in (False, True):
        window = Window(shape=(50, 70), scale=30.0, centre=np.array([0.2, -0.1]), turn=0.3, left=left)
        x, y = window.grid()
        places = window.pixels(np.stack([x, y], -1).astype(float))
        rows, columns = np.mgrid[:50, :70]
        np.testing.assert_allclose(places[..., 0], columns, atol=1e-3)
        np.testing.assert_allclose(places[..., 1], rows, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_mild_eye_shows_every_microaneurysm_and_nothing_else(seed) -> None:
    findings = draw_findings("mild_npdr", WINDOW.centre, 0.9, np.random.default_rng(seed))
    none = np.empty((0, 2))
    added = layers_of("mild_npdr", seed, drusen=none).blood - layers_of("nodr", 0, drusen=none).blood
    for x, y in WINDOW.pixels(findings.microaneurysms):
        assert added[round(y), round(x)] > 0.5
    _, spots = ndimage.label(added > 0.2)
    assert 0 < spots <= len(findings.microaneurysms)
    assert (added > 0.2).sum() < 40 * len(findings.microaneurysms)


def test_findings_add_up_with_the_grade() -> None:
    red = {grade: np.mean([layers_of(grade, seed).blood.mean() for seed in range(4)]) for grade in GRADES}
    assert red["nodr"] < red["mild_npdr"] < red["moderate_npdr"] < red["severe_npdr"]
    assert red["pdr"] > red["moderate_npdr"]


@pytest.mark.parametrize(("finding", "layer"), [("exudates", "horn"), ("wool", "white"), ("scars", "blue")])
def test_each_finding_shows_where_it_lies(finding, layer) -> None:
    places = np.array([[-0.3, 0.35], [0.2, -0.5], [-0.6, -0.3]])
    none = np.empty((0, 2))
    with_it, without = (
        getattr(layers_of("nodr", 0, drusen=none, **{finding: shown}), layer) for shown in (places, none)
    )
    for x, y in WINDOW.pixels(places):
        spot = (slice(round(y) - 3, round(y) + 4), slice(round(x) - 3, round(x) + 4))
        assert (with_it - without)[spot].max() > 0.2
    assert ((with_it - without) > 0.05).mean() < 0.05


def test_new_vessels_on_the_disc_cross_it() -> None:
    x, y = (round(part) for part in WINDOW.pixels(DISC))
    disc = (slice(y - 10, y + 11), slice(x - 10, x + 11))
    without = layers_of("nodr", 0)
    grown = layers_of("nodr", 0, fronds=DISC[None])
    assert grown.blood[disc].mean() > without.blood[disc].mean() + 0.2
    assert grown.horn[disc].mean() < without.horn[disc].mean()


@pytest.mark.parametrize("code", FUNDUS_CAMERAS)
def test_right_and_left_eyes_have_their_disc_on_their_nasal_side(code, eye) -> None:
    for shot, right in ((0, True), (1, False)):
        picture = eye("nodr", code, shot=shot)
        bright = ndimage.gaussian_filter(picture.pixels[..., 1].astype(float), 5)
        column = np.unravel_index(np.argmax(np.where(picture.field, bright, 0)), bright.shape)[1]
        assert (column > bright.shape[1] / 2) == right
        expected = picture.window.pixels(DISC)
        assert abs(column - expected[0]) < 15


@pytest.mark.parametrize("code", FUNDUS_CAMERAS)
def test_the_field_is_round_and_black_outside(code, eye) -> None:
    picture, camera = eye("moderate_npdr", code), FUNDUS_CAMERAS[code]
    height, width, _ = picture.pixels.shape
    assert (height, width) == (120, round(120 * camera.aspect))
    outside = ~ndimage.binary_dilation(picture.field, iterations=3)
    assert picture.pixels[outside].mean() < 12 and picture.pixels[picture.field].mean() > 25
    radius = camera.fill * 60
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) < radius
    assert (picture.field != disc).mean() < (0.02 if camera.notch else 0.01)
    assert (picture.field & ~disc).sum() > 20 if camera.notch else (picture.field & ~disc).sum() < 20


def test_retinas_are_orange_and_darker_at_the_fovea(eye) -> None:
    for code in FUNDUS_CAMERAS:
        picture = eye("nodr", code)
        red, green, blue = picture.pixels[picture.field].mean(0)
        assert red > green > blue
        x, y = picture.window.pixels(np.zeros(2))
        rows, columns = np.mgrid[: picture.field.shape[0], : picture.field.shape[1]]
        away = np.hypot(columns - x, rows - y) / picture.window.scale
        tone = picture.layers.melanin
        assert tone[away < 0.08].mean() > tone[(away > 0.35) & (away < 0.5)].mean() + 0.1


def test_two_eyes_of_a_patient_share_their_pigment_not_their_findings(eye) -> None:
    right, left = eye("moderate_npdr"), eye("moderate_npdr", shot=1)
    assert np.median(right.layers.melanin) == pytest.approx(np.median(left.layers.melanin), rel=0.08)
    assert right.findings.haemorrhages.shape != left.findings.haemorrhages.shape or not np.allclose(
        right.findings.haemorrhages, left.findings.haemorrhages
    )


def test_the_referral_is_as_documented() -> None:
    missing = {code: [g for g in GRADES if not camera.shares[g]] for code, camera in FUNDUS_CAMERAS.items()}
    assert {code: grades for code, grades in missing.items() if grades} == {"C": ["nodr"], "E": ["pdr"]}
    assert [camera.domain for camera in FUNDUS_CAMERAS.values()] == list(feddrg.CENTRES)


@pytest.mark.parametrize(("grade", "size"), [("grade 5", 120), ("nodr", 31)])
def test_impossible_wishes_are_refused(grade, size) -> None:
    with pytest.raises(ConfigError):
        make_fundus(grade, FUNDUS_CAMERAS["A"], 0, size=size)
