from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.photo_phantom.texture import cells, coarse, mesh, noise, stretch


def grid(size: int, extent: float) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(0, extent, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def test_noise_has_unit_spread_and_no_jumps() -> None:
    field = noise(np.random.default_rng(0), *grid(150, 4), 6)
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(1, abs=0.08) and abs(field.mean()) < 0.1
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 2.2


@pytest.mark.parametrize("texture", [noise, lambda *args: cells(*args)[1], mesh])
def test_a_texture_belongs_to_its_points_not_to_the_picture(texture) -> None:
    x, y = grid(40, 2)
    whole = texture(np.random.default_rng(1), x, y, 4)
    part = texture(np.random.default_rng(1), x[5:20, 30:], y[5:20, 30:], 4)
    np.testing.assert_allclose(part, whole[5:20, 30:], atol=1e-4)


@pytest.mark.slow
def test_cells_are_those_of_the_nearest_seed() -> None:
    x, y = grid(25, 2.0)
    near, border, tone = cells(np.random.default_rng(2), x, y, 3)
    rng = np.random.default_rng(2)
    jitter, tones = rng.uniform(0.12, 0.88, (2, 4096)), rng.random(4096, dtype=np.float32)
    start = rng.uniform(0, 64, 2)
    column, row = np.meshgrid(np.arange(-2, 75), np.arange(-2, 75))
    index = (row % 64) * 64 + column % 64
    seeds = np.stack([column + jitter[0][index], row + jitter[1][index]], -1).reshape(-1, 2)
    places = np.stack([x.ravel() * 3 + start[0], y.ravel() * 3 + start[1]], -1)
    distance = np.hypot(*(places[:, None] - seeds).transpose(2, 0, 1))
    first, second = np.sort(distance, 1)[:, :2].T
    np.testing.assert_allclose(near.ravel(), first, atol=1e-4)
    np.testing.assert_allclose(border.ravel(), (second - first) / 2, atol=1e-4)
    clear = second - first > 1e-3
    np.testing.assert_array_equal(tone.ravel()[clear], tones[index.ravel()[distance.argmin(1)]][clear])


def test_a_mesh_has_as_many_holes_as_asked_for() -> None:
    from scipy import ndimage

    lines = mesh(np.random.default_rng(3), *grid(200, 1), 10)
    assert lines.min() == 0 and lines.max() > 0.9
    _, holes = ndimage.label(lines < 0.1)
    assert holes == pytest.approx(10 * 10 * 2 / np.sqrt(3), rel=0.2)  # holes on a triangular lattice


@pytest.mark.parametrize(("size", "stride"), [(1, 2), (2, 3), (13, 4), (20, 1)])
def test_stretching_interpolates_linearly(size, stride) -> None:
    places = coarse(size, stride)
    assert places[-1] >= size - 1
    field = np.random.default_rng(0).random(len(places), dtype=np.float32)
    np.testing.assert_allclose(
        stretch(size, stride) @ field, np.interp(np.arange(size), places, field), rtol=1e-5, atol=1e-6
    )
