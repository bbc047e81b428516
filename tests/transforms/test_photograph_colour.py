"""Colour of photographs, against numpy in double precision."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from monai_fedlora.transforms.photograph_colour import saturate, shades_of_grey


def closed_form(image: np.ndarray, power: int = 6) -> np.ndarray:
    """Finlayson and Trezzi's shades of grey on one (3, H, W) image, in double precision."""
    image = image.astype(np.float64)
    light = np.mean(image**power, axis=(1, 2)) ** (1 / power)
    light /= np.linalg.norm(light)
    return np.clip(image / (light * np.sqrt(3))[:, None, None], 0, 1)


def test_shades_of_grey_is_the_published_formula() -> None:
    images = torch.rand(4, 3, 31, 47, generator=torch.Generator().manual_seed(0))
    images = images * torch.tensor([0.9, 0.6, 0.4])[:, None, None]
    found = shades_of_grey(images)
    for one, image in zip(found, images, strict=True):
        np.testing.assert_allclose(one.numpy(), closed_form(image.numpy()), rtol=0, atol=1e-6)


def test_another_light_gives_the_same_picture() -> None:
    scene = 0.5 * torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    warm = scene * torch.tensor([1.0, 0.7, 0.5])[:, None, None]
    found, expected = shades_of_grey(warm), shades_of_grey(scene)
    ratio = found / expected
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)


def test_grey_stays_as_it_is() -> None:
    grey = torch.rand(1, 1, 20, 30).expand(1, 3, 20, 30)
    torch.testing.assert_close(shades_of_grey(grey), grey, rtol=0, atol=1e-6)


def test_a_black_surround_changes_nothing_inside() -> None:
    image = 0.6 * torch.rand(1, 3, 20, 30)
    padded = torch.nn.functional.pad(image, [7, 3, 11, 2])
    torch.testing.assert_close(shades_of_grey(padded)[:, :, 11:31, 7:37], shades_of_grey(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)])
def test_a_channel_without_light_stays_black(channels: tuple[float, float, float]) -> None:
    image = torch.tensor(channels)[None, :, None, None] * torch.rand(1, 3, 9, 9)
    found = shades_of_grey(image)
    assert torch.isfinite(found).all()
    assert all(bool((found[:, i] == 0).all()) == (channels[i] == 0) for i in range(3))


def test_saturation_moves_colours_away_from_their_grey() -> None:
    image = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(saturate(image, 1.0), image)
    assert (saturate(image, 0.0).std(dim=0) < 1e-12).all()
    red, green, blue = (float(level) for level in image[:, 2, 3])
    luma, in_phase, quadrature = colorsys.rgb_to_yiq(red, green, blue)
    expected = colorsys.yiq_to_rgb(luma, 0.8 * in_phase, 0.8 * quadrature)
    np.testing.assert_allclose(saturate(image, 0.8)[:, 2, 3], expected, atol=0.02)
