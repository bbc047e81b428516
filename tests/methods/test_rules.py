"""What a server computes, against dense matrices in double precision."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.catalogues import trusting
from monai_fedlora.errors import ConfigError, PolicyError
from monai_fedlora.methods import get_method
from monai_fedlora.methods.rules import add_products, average, average_products, factor_keys, orthonormal_factors
from monai_fedlora.scope import Entry, Manifest
from tests.helpers import make_plan
from tests.plugin_packages import Install

KEY_A, KEY_B = "layer.lora_A.shared.weight", "layer.lora_B.shared.weight"
PAIR = (KEY_A, KEY_B)
Payload = dict[str, np.ndarray]


def factors(seed: int, *, rank: int = 3, d_in: int = 12, d_out: int = 20) -> Payload:
    generator = np.random.default_rng(seed)
    return {KEY_A: generator.normal(size=(rank, d_in)), KEY_B: generator.normal(size=(d_out, rank))}


def product(payload: Mapping[str, np.ndarray]) -> np.ndarray:
    return payload[KEY_B].astype(np.float64) @ payload[KEY_A].astype(np.float64)


def mean_product(updates: list[tuple[float, Payload]]) -> np.ndarray:
    return sum(weight * product(payload) for weight, payload in updates)  # type: ignore[return-value]


def truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of a rank, by numpy's decomposition of the whole matrix (Eckart and Young)."""
    u, singular, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * singular[:rank]) @ vt[:rank]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def shared_basis(seed: int, count: int) -> list[Payload]:
    """Sites whose mean product has the rank of their factors: they differ in B alone."""
    a = factors(seed)[KEY_A]
    return [{**factors(seed + index), KEY_A: a} for index in range(count)]


weights = st.lists(st.integers(1, 500), min_size=1, max_size=5).map(lambda n: [cases / sum(n) for cases in n])


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 12))
def test_orthonormal_rows_leave_the_product_as_it_is(seed: int, rank: int, d_in: int, d_out: int, kept: int) -> None:
    """For a B of any rank, none among them, and factors wider than the layer."""
    payload = factors(seed, rank=rank, d_in=d_in, d_out=d_out)
    payload[KEY_B][:, kept:] = 0
    a, b = orthonormal_factors(payload[KEY_A], payload[KEY_B])
    assert (a.shape, b.shape) == (payload[KEY_A].shape, payload[KEY_B].shape)
    np.testing.assert_allclose(b @ a, product(payload), atol=1e-11)
    used = min(rank, d_in)
    np.testing.assert_allclose(a @ a.T, np.diag(np.arange(rank) < used), atol=1e-12)
    lengths = np.linalg.norm(b, axis=0)
    singular = np.linalg.svd(product(payload), compute_uv=False)
    np.testing.assert_allclose(lengths[: len(singular)], singular[:rank], atol=1e-6)


@given(weights, st.integers(0, 1000), st.integers(1, 15), st.integers(1, 15), st.integers(1, 15))
def test_the_mean_product_is_approximated_as_well_as_the_rank_allows(
    shares: list[float], seed: int, rank: int, d_in: int, d_out: int
) -> None:
    updates = [(share, factors(seed + index, rank=rank, d_in=d_in, d_out=d_out)) for index, share in enumerate(shares)]
    combined = average_products(updates, [PAIR])
    assert combined[KEY_A].shape == (rank, d_in)
    assert combined[KEY_B].shape == (d_out, rank)
    mean = mean_product(updates)
    least = np.linalg.norm(mean - truncated(mean, rank))
    assert np.linalg.norm(mean - product(combined)) < least + 1e-6 * np.linalg.norm(mean)


@given(weights, st.integers(0, 1000))
def test_a_mean_product_of_the_factors_rank_is_averaged_exactly(shares: list[float], seed: int) -> None:
    updates = list(zip(shares, shared_basis(seed, len(shares)), strict=True))
    combined = average_products(updates, [PAIR])
    assert relative_error(product(combined), mean_product(updates)) < 1e-6


def test_averaging_factors_apart_is_another_thing() -> None:
    """Guards the comparison above: factors of four independent sites, whose mean product has a larger rank."""
    updates = [(0.25, factors(seed, rank=8, d_in=64, d_out=64)) for seed in range(4)]
    expected = mean_product(updates)
    apart = relative_error(product(average(updates, PAIR)), expected)
    together = relative_error(product(average_products(updates, [PAIR])), expected)
    assert apart > 0.8
    assert together < apart


@given(st.integers(0, 1000))
def test_one_site_alone_keeps_its_product(seed: int) -> None:
    payload = factors(seed)
    assert relative_error(product(average_products([(1.0, payload)], [PAIR])), product(payload)) < 1e-6


@given(st.integers(0, 1000), st.permutations(range(3)), st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
def test_signs_and_the_order_of_directions_do_not_matter(seed: int, order: list[int], signs: list[float]) -> None:
    """B P P^T A is B A: sites may hold the same product in other factors."""
    plain = [(0.3, factors(seed)), (0.7, factors(seed + 1))]
    a, b = plain[1][1][KEY_A], plain[1][1][KEY_B]
    turned = {KEY_A: np.array(signs)[:, None] * a[order], KEY_B: b[:, order] * np.array(signs)}
    one = product(average_products(plain, [PAIR]))
    other = product(average_products([plain[0], (0.7, turned)], [PAIR]))
    assert relative_error(other, one) < 1e-6


def test_opposite_products_cancel_and_every_direction_stays_trainable() -> None:
    one = factors(0)
    combined = average_products([(0.5, one), (0.5, {**one, KEY_B: -one[KEY_B]})], [PAIR])
    assert np.abs(product(combined)).max() < 1e-12
    assert np.linalg.matrix_rank(combined[KEY_A]) == 3


@pytest.mark.parametrize("used", [1, 2])
def test_directions_without_a_singular_value_have_rows_of_a_to_train_from(used: int) -> None:
    payloads = shared_basis(5, 2)
    for payload in payloads:
        payload[KEY_B][:, used:] = 0
    combined = average_products([(0.5, payload) for payload in payloads], [PAIR])
    assert relative_error(product(combined), mean_product([(0.5, payload) for payload in payloads])) < 1e-6
    np.testing.assert_allclose(np.linalg.norm(combined[KEY_A], axis=1), 3**-0.5, rtol=1e-9)
    assert np.abs(combined[KEY_B][:, used:]).max() < 1e-12


def test_before_the_first_step_a_is_averaged_and_b_stays_zero() -> None:
    updates = [(share, {**factors(seed), KEY_B: np.zeros((20, 3))}) for seed, share in enumerate((0.25, 0.75))]
    combined = average_products(updates, [PAIR])
    assert not combined[KEY_B].any()
    np.testing.assert_allclose(combined[KEY_A], 0.25 * factors(0)[KEY_A] + 0.75 * factors(1)[KEY_A], rtol=1e-12)


def test_a_site_that_has_learned_nothing_yet_pulls_the_product_towards_zero() -> None:
    still = {**factors(1), KEY_B: np.zeros((20, 3))}
    combined = average_products([(0.5, factors(0)), (0.5, still)], [PAIR])
    assert relative_error(product(combined), 0.5 * product(factors(0))) < 1e-6


def test_the_first_directions_matter_most() -> None:
    """What a site of a smaller rank keeps is the best it could keep."""
    updates = [(0.5, factors(0, rank=6)), (0.5, factors(1, rank=6))]
    combined = average_products(updates, [PAIR])
    for rank in (1, 3, 5):
        cut = combined[KEY_B][:, :rank] @ combined[KEY_A][:rank]
        assert relative_error(cut, truncated(mean_product(updates), rank)) < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_sums_are_in_double_precision_whatever_travels(dtype: str) -> None:
    updates = [
        (1 / 3, {key: value.astype(dtype) for key, value in factors(seed, rank=12).items()}) for seed in range(3)
    ]
    combined = average_products(updates, [PAIR])
    assert combined[KEY_A].dtype == np.float64
    assert relative_error(product(combined), mean_product(updates)) < 1e-12


@given(weights, st.integers(0, 1000), st.floats(0.1, 10))
def test_products_of_any_ranks_add_to_a_dense_update(shares: list[float], seed: int, scale: float) -> None:
    updates = [(share, factors(seed + index, rank=index + 1)) for index, share in enumerate(shares)]
    before = np.random.default_rng(seed).normal(size=(20, 12)).astype(np.float32)
    found = add_products(updates, before, pair=PAIR, scale=scale)
    np.testing.assert_allclose(found, before + scale * mean_product(updates), rtol=1e-9, atol=1e-9)


def test_factors_are_found_by_their_keys() -> None:
    keys = ["head.weight", KEY_B, KEY_A, "x.lora_B.shared.weight", "x.lora_A.shared.weight"]
    assert factor_keys(keys) == [PAIR, ("x.lora_A.shared.weight", "x.lora_B.shared.weight")]


def test_nothing_to_combine_is_an_error() -> None:
    with pytest.raises(ValueError, match="no update"):
        average([], ["a"])


RULE = """
import numpy as np
from monai_fedlora.methods.rules import Rule

def median(updates, reference, manifest):
    return {key: np.median([sent[key] for _, sent in updates], axis=0) for key in manifest.down.entries}

MEDIAN = Rule(combine=median)
"""


def test_a_rule_of_another_package_combines_what_methods_share(install: Install) -> None:
    install("robust", {"rules:middle": "median_rule:MEDIAN", "rules:odd": "median_rule:median"}, {"median_rule": RULE})
    plan = make_plan(method_args={"averaging": "middle"})
    assert plan.plugins == {"robust": "1.0"}
    manifest = Manifest({"head": Entry((2,), "float32")})
    updates = [(1 / 3, {"head": np.array([value, value], np.float32)}) for value in (0.0, 1.0, 50.0)]
    combined = plan.build_method().aggregate(updates, {}, manifest)
    assert combined["head"].tolist() == [1, 1]
    assert not plan.build_method().starts_over("head.lora_A.shared.weight", None)
    with pytest.raises(ConfigError, match=r"robust 1.0 .* which is no .*Rule"):
        get_method("fedit", {"averaging": "odd"}).aggregate(updates, {}, manifest)
    with pytest.raises(ConfigError, match="did you mean 'middle'"):
        get_method("fedit", {"averaging": "midle"})
    with trusting((), source="a policy"), pytest.raises(PolicyError, match="robust"):
        plan.build_method().aggregate(updates, {}, manifest)
