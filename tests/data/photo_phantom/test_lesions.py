"""The signs of every diagnosis, measured in the drawn layers, before any camera."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from monai_fedlora.data.photo_phantom.dermoscopy import Dermoscopy
from monai_fedlora.data.photo_phantom.lesions import CLASSES
from monai_fedlora.data.readers.fed_isic2019 import GROUPS

SEEDS = range(8)


def above_skin(picture: Dermoscopy, layer: str) -> np.ndarray:
    """Amount of a layer over that of the skin around."""
    amount = getattr(picture.layers, layer)
    return amount - np.median(amount[~ndimage.binary_dilation(picture.mask, iterations=6)])


def polar(picture: Dermoscopy, layer: str) -> np.ndarray:
    """A layer above skin on rings around the middle of the lesion: (radii, angles)."""
    centre = np.argwhere(picture.mask).mean(0)
    radius = np.sqrt(picture.mask.sum() / np.pi) * np.linspace(0.1, 1.3, 13)[:, None]
    angle = np.arange(48) * (2 * np.pi / 48)
    places = centre[0] + radius * np.sin(angle), centre[1] + radius * np.cos(angle)
    return ndimage.map_coordinates(above_skin(picture, layer), places, order=1, mode="nearest")


def imbalance(picture: Dermoscopy) -> float:
    """Part of the pigment that a mirror image at the best axis does not cover."""
    rings = polar(picture, "melanin") * np.linspace(0.1, 1.3, 13)[:, None]
    index = np.arange(48)
    return min(
        float(np.abs(rings - rings[:, (turn - index) % 48]).sum() / (2 * np.abs(rings).sum())) for turn in range(48)
    )


def inside(picture: Dermoscopy, layer: str) -> np.ndarray:
    return above_skin(picture, layer)[picture.mask]


@pytest.fixture
def mean(lesion):
    """Return ``mean(diagnosis, measure)`` over some lesions."""
    return lambda diagnosis, measure: float(np.mean([measure(lesion(diagnosis, seed=seed)) for seed in SEEDS]))


def test_the_classes_are_those_of_fed_isic2019() -> None:
    assert CLASSES == GROUPS


def test_melanomas_are_laid_out_askew_and_in_several_tones(mean) -> None:
    def tones(picture: Dermoscopy) -> float:
        return float(inside(picture, "melanin").std())

    assert mean("MEL", imbalance) > 1.5 * mean("NV", imbalance)
    assert mean("MEL", tones) > 1.5 * mean("NV", tones)


def test_melanomas_have_a_specific_sign_each_and_moles_have_none(lesion) -> None:
    pictures = [lesion("MEL", seed=seed) for seed in SEEDS]
    assert all(picture.signs["veil"] or picture.signs["streaks"] or picture.signs["network"] for picture in pictures)
    for picture in pictures:
        veil = ndimage.binary_opening(picture.layers.blue > 0.25, iterations=2)
        assert veil.any() == bool(picture.signs["veil"])
        assert bool(picture.signs["regression"]) == bool((picture.layers.white > 0.2).any())
    assert not any((lesion("NV", seed=seed).layers.white > 0.05).any() for seed in SEEDS)


def test_keratoses_have_sharp_borders_waxy_ground_and_white_cysts(lesion, mean) -> None:
    def border(picture: Dermoscopy) -> float:
        profile = polar(picture, "horn").mean(1)
        return float(np.abs(np.diff(profile)).max() / np.ptp(profile))

    assert all(np.median(lesion("BKL", seed=seed).layers.horn[lesion("BKL", seed=seed).mask]) > 0.05 for seed in SEEDS)
    assert mean("BKL", border) > 0.12
    for seed in SEEDS:
        picture = lesion("BKL", seed=seed)
        _, spots = ndimage.label(picture.layers.white > 0.3)
        assert 1 <= spots <= picture.signs["cysts"]


def test_basal_cell_carcinomas_have_thin_red_vessels_and_blue_nests(lesion) -> None:
    for seed in SEEDS:
        picture = lesion("BCC", seed=seed)
        vessels = above_skin(picture, "blood") > 0.45
        assert vessels.any()
        assert not ndimage.binary_erosion(vessels, iterations=3).any() or picture.signs["ulcer"]
        _, nests = ndimage.label(picture.layers.blue > 0.3)
        assert nests <= 2 * picture.signs["nests"] and (nests > 0) == (picture.signs["nests"] > 0)
    assert len({lesion("BCC", seed=seed).signs["nests"] for seed in SEEDS}) > 2


def test_actinic_keratoses_are_red_between_pale_follicles(mean) -> None:
    def relation(picture: Dermoscopy) -> float:
        core = ndimage.binary_erosion(picture.mask, iterations=3)
        return float(np.corrcoef(picture.layers.horn[core], picture.layers.blood[core])[0, 1])

    assert mean("AK", relation) < -0.4
    assert mean("AK", lambda picture: inside(picture, "blood").mean()) > 0.1


def test_dermatofibromas_have_a_white_middle_in_a_brown_ring(lesion) -> None:
    for seed in SEEDS:
        white, brown = (polar(lesion("DF", seed=seed), layer).mean(1) for layer in ("white", "melanin"))
        assert white[:3].mean() > 0.2 and white[8:].mean() < 0.1
        assert brown[5:9].mean() > brown[:2].mean()


def test_vascular_lesions_are_red_cells_apart(lesion, mean) -> None:
    assert mean("VASC", lambda picture: inside(picture, "blood").mean()) > 0.4
    assert mean("NV", lambda picture: inside(picture, "blood").mean()) < 0.3
    picture = max((lesion("VASC", seed=seed) for seed in SEEDS), key=lambda picture: picture.mask.sum())
    blood = above_skin(picture, "blood")
    _, lacunae = ndimage.label((blood > np.median(blood[picture.mask])) & picture.mask)
    assert lacunae >= 4


def test_squamous_cell_carcinomas_have_a_mass_of_keratin(lesion, mean) -> None:
    for seed in SEEDS:
        assert polar(lesion("SCC", seed=seed), "horn").max() > 0.25
    assert mean("SCC", lambda picture: inside(picture, "blood").mean()) > 0.12


@pytest.mark.parametrize("diagnosis", CLASSES)
def test_every_diagnosis_stands_out_from_its_skin(diagnosis, lesion) -> None:
    for seed in SEEDS:
        picture = lesion(diagnosis, seed=seed)
        drawn = sum(np.abs(above_skin(picture, layer)) for layer in ("melanin", "blood", "blue", "horn", "white"))
        assert drawn[picture.mask].mean() > 3 * drawn[~ndimage.binary_dilation(picture.mask, iterations=8)].mean()
