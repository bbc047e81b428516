import math

import numpy as np
import pytest
import torch

from monai_fedlora.networks.position import find_grid, resize_position, sincos_position


def naive_table(dim: int, grid: tuple[int, ...]) -> np.ndarray:
    """The table written out by loops, the coordinates from numpy's default meshgrid."""
    coordinates = np.stack([axis.reshape(-1) for axis in np.meshgrid(*[np.arange(size) for size in grid])], axis=1)
    part = dim // len(grid)
    part -= part % 2
    table = np.zeros((math.prod(grid), dim))
    for token in range(len(table)):
        for axis in range(len(grid)):
            for i in range(part // 2):
                angle = coordinates[token, axis] / 10000 ** (i / (part // 2))
                table[token, axis * part + i] = math.sin(angle)
                table[token, axis * part + part // 2 + i] = math.cos(angle)
    return table


@pytest.mark.parametrize(("dim", "grid"), [(12, (2, 3, 4)), (20, (3, 2, 1)), (17, (4, 1, 2)), (10, (3, 5))])
def test_table_matches_loops_over_tokens_axes_and_frequencies(dim: int, grid: tuple[int, ...]) -> None:
    np.testing.assert_allclose(sincos_position(dim, grid).numpy(), naive_table(dim, grid), atol=1e-6)


def test_first_two_axes_are_swapped_against_the_token_order() -> None:
    table = sincos_position(6, (2, 3, 1))  # columns: sin x, cos x, sin y, cos y, sin z, cos z
    second_token = table[1]  # the token (0, 1, 0) in x, y, z order
    assert second_token[0] == pytest.approx(math.sin(1))
    assert second_token[2] == pytest.approx(0)


def naive_axis_weights(old: int, new: int) -> np.ndarray:
    """Linear interpolation between voxel centres as an (new, old) matrix, clamped at the borders."""
    weights = np.zeros((new, old))
    for i in range(new):
        centre = max((i + 0.5) * old / new - 0.5, 0.0)
        low = min(int(centre), old - 1)
        weights[i, low] += 1 - (centre - low)
        weights[i, min(low + 1, old - 1)] += centre - low
    return weights


def test_resizing_is_linear_along_each_axis() -> None:
    grid, new = (3, 2, 4), (4, 5, 3)
    position = torch.randn(1, 24, 5, generator=torch.Generator().manual_seed(0))
    matrices = [naive_axis_weights(a, b) for a, b in zip(grid, new, strict=True)]
    expected = np.einsum("ax,by,cz,xyzd->abcd", *matrices, position.numpy().reshape(*grid, 5)).reshape(1, -1, 5)
    np.testing.assert_allclose(resize_position(position, grid, new).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("grid", [(12, 12, 16), (8, 18, 16), (1, 1, 5), (7, 2, 3), (24, 24, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_table_tells_its_grid(grid: tuple[int, int, int], dtype: torch.dtype) -> None:
    assert find_grid(sincos_position(24, grid).unsqueeze(0).to(dtype)) == grid


def test_other_values_have_no_grid() -> None:
    table = sincos_position(24, (4, 4, 2)).unsqueeze(0)
    assert find_grid(table + 0.1) is None
    assert find_grid(torch.zeros(1, 32, 24)) is None
    table[0, 5, 3] = 2.0
    assert find_grid(table) is None
