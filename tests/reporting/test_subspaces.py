"""Principal angles, against SciPy's and in cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orth, subspace_angles

from monai_fedlora.reporting.subspaces import layer_overlaps, overlap, update_spaces


def factors(rank: int, *, d_in: int = 12, d_out: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rank, d_in)), generator.normal(size=(d_out, rank))


def model(shared: tuple[np.ndarray, np.ndarray], private: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        f"blocks.0.q.lora_{factor}.{adapter}.weight": value
        for adapter, pair in (("shared", shared), ("private", private))
        for factor, value in zip("AB", pair, strict=True)
    }


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_angles_are_those_of_the_products(one: int, other: int, seed: int) -> None:
    shared, private = factors(one, seed=seed), factors(other, seed=seed + 1)
    (columns, rows) = layer_overlaps(model(shared, private))["blocks.0.q"]
    products = [b @ a for a, b in (shared, private)]
    for found, (p, q) in ((columns, products), (rows, [product.T for product in products])):
        expected = np.degrees(subspace_angles(orth(p, rcond=1e-9), orth(q, rcond=1e-9)))[::-1]
        np.testing.assert_allclose(found.angles, expected, atol=1e-4)
        assert found.dims == (one, other)
    assert (columns.ambient, rows.ambient) == (10, 12)


def test_small_angles_keep_their_digits() -> None:
    one = np.array([[1.0], [0.0], [0.0]])
    for angle in (1e-9, 1e-5, 1.0, np.pi / 2 - 1e-9):
        other = np.array([[np.cos(angle)], [np.sin(angle)], [0.0]])
        assert overlap(one, other).angles == pytest.approx((np.degrees(angle),), rel=1e-6)


def test_the_same_subspace_overlaps_wholly_and_an_orthogonal_one_not_at_all() -> None:
    a, b = factors(3)
    mixed = np.random.default_rng(5).normal(size=(3, 3))
    columns, rows = layer_overlaps(model((a, b), (np.linalg.inv(mixed) @ a, 7 * b @ mixed)))["blocks.0.q"]
    assert columns.share == pytest.approx(1) and rows.share == pytest.approx(1)
    split = np.eye(10)
    columns, _ = layer_overlaps(model((a, split[:, :3]), (a, split[:, 3:6])))["blocks.0.q"]
    assert columns.angles == pytest.approx((90, 90, 90))
    assert columns.share == pytest.approx(0)


def test_random_subspaces_overlap_as_much_as_by_chance() -> None:
    shares = []
    for seed in range(300):
        columns, _ = layer_overlaps(model(factors(2, seed=2 * seed), factors(4, seed=2 * seed + 1)))["blocks.0.q"]
        shares.append(columns.share or 0.0)
    assert columns.by_chance == 0.4
    assert np.mean(shares) == pytest.approx(0.4, abs=0.03)


def test_directions_that_do_nothing_do_not_count() -> None:
    a, b = factors(4)
    b[:, 2:] = 0
    assert update_spaces(a, b)[0].shape == (10, 2)
    columns, _ = layer_overlaps(model(factors(2, seed=3), (a, np.zeros_like(b))))["blocks.0.q"]
    assert columns.dims == (2, 0)
    assert columns.angles == () and columns.share is None


def test_layers_with_one_adapter_are_left_out() -> None:
    whole = model(factors(2), factors(2, seed=1))
    assert layer_overlaps({key: value for key, value in whole.items() if ".private." not in key}) == {}
    assert layer_overlaps({**whole, "head.weight": np.ones((2, 2))}).keys() == {"blocks.0.q"}


def test_adapters_of_a_convolution_are_those_of_the_matrix_that_it_multiplies_patches_by() -> None:
    shared, private = factors(3, seed=5), factors(2, seed=6)
    shaped = [(a.reshape(len(a), 3, 2, 2), b[:, :, None, None]) for a, b in (shared, private)]
    assert layer_overlaps(model(*shaped)) == layer_overlaps(model(shared, private))
