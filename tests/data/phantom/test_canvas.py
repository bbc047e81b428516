from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.phantom.canvas import Grid, blend, edge, line, smooth


def test_smooth_fields_have_unit_spread_and_no_jumps() -> None:
    field = smooth(np.random.default_rng(0), (8, 120, 120), (4, 30, 30))
    assert field.shape == (8, 120, 120) and field.dtype == np.float32
    assert field.std() == pytest.approx(1, abs=0.1) and abs(field.mean()) < 0.1
    assert np.abs(np.diff(field, axis=2)).max() < 2.5


def test_an_edge_is_half_at_the_border_and_a_line_full_on_it() -> None:
    np.testing.assert_allclose(edge(np.array([-2.0, 0.0, 0.5, 2.0]), 2.0), [0, 0.5, 0.75, 1])
    np.testing.assert_allclose(line(np.array([-2.0, 0.0, 0.5, 2.0]), 2.0), [0, 1, 0.75, 0])


def test_blending_keeps_what_has_no_share() -> None:
    image = np.array([1.0, 1.0, 1.0])
    blend(image, 3.0, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(image, [1, 2, 3])


@pytest.mark.parametrize("turn", [0.0, 0.7, 2.5])
def test_a_patch_holds_every_point_near_its_centre(turn) -> None:
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    grid = Grid.of(np.arange(-50, 50, 2.0), np.arange(-40, 40, 2.0), axes)
    near = np.hypot(grid.a - 20, grid.b + 15) < 9
    part = grid.patch((20, -15), 9)
    inside = np.zeros_like(grid.a)
    inside[part] = 1
    assert near.any() and inside[near].all() and inside.sum() < 150


@pytest.mark.parametrize("centre", [(100, 5), (5, 100), (-100, 5), (5, -100)])
def test_a_patch_outside_the_grid_is_empty(centre) -> None:
    grid = Grid.of(np.arange(10.0), np.arange(10.0), np.eye(2))
    assert grid.a[grid.patch(centre, 3)].size == 0
