from __future__ import annotations

import math

import numpy as np
import pytest

from monai_fedlora.data.photo_phantom.strokes import dots, lines, wander


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.5])
def test_a_dot_keeps_its_volume_however_fine(sigma) -> None:
    picture = dots((40, 50), np.array([21.3]), np.array([18.6]), sigma, 3.0)
    assert picture.shape == (40, 50) and picture.dtype == np.float32
    assert picture.sum() == pytest.approx(3 * 2 * math.pi * sigma**2, rel=0.09)
    y, x = np.mgrid[:40, :50]
    assert (picture * x).sum() / picture.sum() == pytest.approx(21.3, abs=0.05)
    assert (picture * y).sum() / picture.sum() == pytest.approx(18.6, abs=0.05)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_a_line_is_as_high_and_as_wide_as_asked_for(sigma) -> None:
    picture = lines((60, 80), np.array([[[-20.0, 30.0], [40.0, 30.0], [100.0, 30.0]]]), sigma, 0.8)
    assert picture[30, 40] == pytest.approx(0.8, rel=0.08)
    assert picture[:, 40].sum() == pytest.approx(0.8 * sigma * math.sqrt(2 * math.pi), rel=0.05)
    np.testing.assert_allclose(picture[30, 5:75], picture[30, 40], rtol=0.03)


def test_a_line_thinner_than_a_pixel_is_paler_not_thinner() -> None:
    def column(sigma: float) -> np.ndarray:
        return lines((21, 40), np.array([[[0.0, 10.0], [39.0, 10.0]]]), sigma, 1.0)[:, 20]

    thin, thinner = column(0.1), column(0.05)
    np.testing.assert_allclose(thinner / thinner.sum(), thin / thin.sum(), atol=0.02)
    assert thinner.sum() == pytest.approx(thin.sum() / 2, rel=0.05)


def test_each_line_has_its_own_width_and_outside_is_clipped() -> None:
    nodes = np.array([[[5.0, 10.0], [35.0, 10.0]], [[5.0, 30.0], [35.0, 30.0]], [[500.0, 0.0], [500.0, 40.0]]])
    picture = lines((40, 40), nodes, np.array([[1.0], [2.5], [1.0]]), np.array([[1.0, 0.5], [1.0, 1.0], [1.0, 1.0]]))
    assert picture[30].sum() > picture[10].sum() and picture[:, 39].max() < 0.1
    assert picture[10, 8] > picture[10, 32]
    assert lines((8, 9), np.empty((0, 4, 2)), 1.0, 1.0).shape == (8, 9)


def test_many_dots_are_the_sum_of_single_ones() -> None:
    rng = np.random.default_rng(0)
    x, y, sigma, weight = rng.uniform(-4, 34, 20), rng.uniform(-4, 24, 20), rng.uniform(0.1, 3, 20), rng.random(20)
    single = sum(dots((20, 30), *(np.array([part[n]]) for part in (x, y, sigma, weight))) for n in range(20))
    np.testing.assert_allclose(dots((20, 30), x, y, sigma, weight), single, atol=1e-5)


def test_a_wandering_line_starts_where_told_and_is_as_long_as_told() -> None:
    start = np.array([[1.0, 2.0], [3.0, 4.0]])
    nodes = wander(
        np.random.default_rng(0), start=start, heading=np.array([0.0, np.pi / 2]), length=np.array([5.0, 7.0]),
        nodes=9, curl=1.0,
    )  # fmt: skip
    np.testing.assert_allclose(nodes[:, 0], start)
    np.testing.assert_allclose(np.hypot(*np.diff(nodes, axis=1).transpose(2, 0, 1)).sum(1), [5, 7])
    straight = wander(
        np.random.default_rng(0), start=start, heading=np.array([0.0, np.pi / 2]), length=np.array([5.0, 7.0]),
        nodes=9, curl=0.0,
    )  # fmt: skip
    np.testing.assert_allclose(straight[:, -1], [[6, 2], [3, 11]])
