from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.data.photo_phantom.dermoscopy import make_dermoscopy
from monai_fedlora.data.photo_phantom.free_dermatoscope import draw_dermatoscope, draw_habit
from monai_fedlora.data.photo_phantom.lesions import CLASSES, DIAGNOSES
from monai_fedlora.data.photo_phantom.photo_stream import LABELS, MAPS, NUMBERS, PhotoStream
from monai_fedlora.errors import ConfigError


def is_lesion(item: dict[str, Any]) -> bool:
    return int(item["label"]) < len(CLASSES)


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    stream = PhotoStream(image_size=(64, 64), seed=0)
    return [stream[number] for number in range(24)]


def test_an_item_follows_from_seed_and_number_alone(items: list[dict[str, Any]]) -> None:
    torch.rand(3), np.random.default_rng(0).random(3)
    again = PhotoStream(image_size=(64, 64), seed=0)[5]
    assert all(torch.equal(items[5][name], again[name]) for name in again)
    other = PhotoStream(image_size=(64, 64), seed=1)[5]
    assert not torch.equal(items[5]["image"], other["image"])


def test_everything_is_within_its_range(items: list[dict[str, Any]]) -> None:
    for item in items:
        assert item["image"].shape == (3, 64, 64) and item["maps"].shape == (len(MAPS), 64, 64)
        assert item["image"].dtype == item["maps"].dtype == torch.float32
        for part in (item["image"], item["maps"], item["signs"]):
            assert part.min() >= 0 and part.max() <= 1
        assert 0 <= int(item["label"]) < len(LABELS) and item["numbers"].shape == (len(NUMBERS),)


def test_lesions_have_masks_and_retinas_none(items: list[dict[str, Any]]) -> None:
    kinds = [is_lesion(item) for item in items]
    assert 0.5 < np.mean(kinds) < 1
    for item, lesion in zip(items, kinds, strict=True):
        assert bool(item["maps"][0].any()) == bool(item["numbers"].any()) == lesion
        assert float(item["numbers"][0]) == pytest.approx(float(item["maps"][0].mean()))
        assert lesion or not item["signs"].any()


def test_the_mask_lies_on_the_lesion(items: list[dict[str, Any]]) -> None:
    """Melanin and blood inside are more than outside, and the picture is darker or redder there."""
    for item in filter(is_lesion, items):
        inside = item["maps"][0] > 0.5
        if inside.float().mean() > 0.9:
            continue
        pigments = item["maps"][1:].sum(0)
        assert pigments[inside].mean() > pigments[~inside].mean()


def test_a_number_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="numbers begin at 0"):
        PhotoStream(image_size=(64, 64), seed=0)[-1]


def test_outlines_lie_beyond_the_bands_of_their_diagnosis_too() -> None:
    band = DIAGNOSES["NV"].habit
    habits = [draw_habit(band, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.lobes[0] <= band.lobes[0] and one.lobes[1] >= band.lobes[1] and one.lobes[0] >= 0 for one in habits)
    assert len({one.size for one in habits}) == 20 and max(one.size[1] for one in habits) > 1.1 * band.size[1]
    camera = draw_dermatoscope(np.random.default_rng(0))
    usual, other = (make_dermoscopy("NV", camera, 3, size=48, habit=one).outline for one in (None, habits[0]))
    assert not np.array_equal(usual.radius, other.radius)


def test_cameras_differ_in_every_number() -> None:
    first, second = (draw_dermatoscope(np.random.default_rng(seed)) for seed in (1, 2))
    for name in ("aspect", "shade", "magnification", "tone", "redness", "damage"):
        assert getattr(first, name) != getattr(second, name)
    assert first.optics.gain != second.optics.gain and first.optics.blur != second.optics.blur
