"""Which part of a photograph is kept: synthetic discs whose place is known, and Pillow's scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from monai_fedlora.transforms.photograph_geometry import centre_square, disc_square, field_of_view, resize


def fundus(
    height: int = 300,
    width: int = 400,
    *,
    centre: tuple[float, float] = (150.0, 190.0),
    radius: float = 120.0,
    surround: float = 0.01,
    noise: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """(3, H, W): a reddish disc, darker towards its rim, in a dark surround."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.arange(height).double()[:, None] - centre[0], torch.arange(width).double()[None] - centre[1]
    distance = torch.hypot(row.expand(height, width), column.expand(height, width))
    disc = torch.where(distance <= radius, 0.8 - 0.4 * distance / radius, surround)
    image = disc.float() * torch.tensor([1.0, 0.5, 0.25])[:, None, None]
    return (image + noise * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def assert_box(image: Tensor, expected: tuple[int, int, int, int], *, within: int = 3) -> None:
    found = field_of_view(image)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= within, found


DISC = (30, 271, 70, 311)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("surround", [0.0, 0.01, 0.06])
def test_disc_is_found(noise: float, surround: float) -> None:
    assert_box(fundus(surround=surround, noise=noise), DISC)


def test_disc_of_a_large_photograph_is_found() -> None:
    image = fundus(1200, 1600, centre=(600, 760), radius=480, noise=0.05)
    assert_box(image, (120, 1081, 280, 1241), within=10)


@pytest.mark.parametrize("level", [0.05, 0.2, 1.0])
def test_exposure_does_not_matter(level: float) -> None:
    assert_box(level * fundus(), DISC)


def test_specks_and_an_inscription_do_not_widen_the_box() -> None:
    image = fundus()
    image[:, 4:12, 330:390] = 1.0
    image[:, 290, ::40] = 1.0
    assert_box(image, DISC)


def test_disc_cut_off_by_the_sensor_keeps_its_shape() -> None:
    image = fundus(200, 400, centre=(100, 200), radius=150)
    assert_box(image, (0, 200, 50, 351))
    square = disc_square(image)
    assert square.shape[1] == square.shape[2] == pytest.approx(301, abs=6)
    blank = (square == 0).all(dim=0).all(dim=1)
    assert int(blank.sum()) == pytest.approx(101, abs=6)
    assert abs(int(blank[: len(blank) // 2].sum()) - int(blank[len(blank) // 2 :].sum())) <= 1


@pytest.mark.parametrize("value", [0.0, 0.01, 0.5])
def test_photograph_without_a_surround_is_kept_whole(value: float) -> None:
    image = torch.full((3, 60, 80), value)
    assert field_of_view(image) == (0, 60, 0, 80)
    assert field_of_view(0.3 + 0.7 * torch.rand(3, 60, 80)) == (0, 60, 0, 80)


@pytest.mark.parametrize("shape", [(32, 32), (33, 50), (257, 129), (32, 700)])
def test_any_shape_gives_a_square_with_the_disc(shape: tuple[int, int]) -> None:
    height, width = shape
    image = fundus(height, width, centre=(height / 2, width / 2), radius=0.4 * min(shape))
    square = disc_square(image)
    assert square.shape[1] == square.shape[2] >= 0.75 * min(shape)
    assert float(square.max()) == float(image.max())


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (7, 4)])
def test_centre_square_is_numpys(shape: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *shape)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    assert torch.equal(centre_square(image), image[:, :, top : top + side, left : left + side])


@pytest.mark.parametrize(("side", "size"), [(300, 64), (150, 224), (64, 64), (101, 100)])
def test_scaling_is_pillows(side: int, size: int) -> None:
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = [Image.fromarray(c.numpy(), "F").resize((size, size), Image.Resampling.BILINEAR) for c in image[0]]
    np.testing.assert_allclose(resize(image, size)[0].numpy(), np.stack(expected), rtol=0, atol=2e-5)
