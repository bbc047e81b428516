"""Robust averages against closed forms and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import robust
from monai_fedlora.methods.rules import RULES, gram_of_changes
from monai_fedlora.scope import Entry, Manifest
from tests.helpers import make_plan

KEY_A, KEY_B, HEAD = "layer.lora_A.shared.weight", "layer.lora_B.shared.weight", "head.bias"
SHAPES = {KEY_A: (2, 6), KEY_B: (5, 2), HEAD: (3,)}
sizes = st.integers(3, 9)
seeds = st.integers(0, 10_000)


def equal(n: int) -> np.ndarray:
    return np.full(n, 1 / n)


@given(seeds, sizes)
def test_of_equal_weights_the_median_is_numpys(seed: int, n: int) -> None:
    values = np.random.default_rng(seed).normal(size=(n, 4, 3))
    np.testing.assert_allclose(robust.median(values, equal(n)), np.median(values, axis=0))


@given(seeds, st.lists(st.integers(1, 5), min_size=3, max_size=7))
def test_a_weight_counts_as_that_many_equal_values(seed: int, counts: list[int]) -> None:
    values = np.random.default_rng(seed).normal(size=(len(counts), 6))
    repeated = np.repeat(values, counts, axis=0)
    weights = np.array(counts) / sum(counts)
    np.testing.assert_allclose(robust.median(values, weights), np.median(repeated, axis=0))
    np.testing.assert_allclose(
        robust.trimmed_mean(values, weights), robust.trimmed_mean(repeated, equal(len(repeated))), atol=1e-12
    )


def test_the_trimmed_mean_of_four_leaves_out_one_at_either_end() -> None:
    values = np.array([[5.0, -1.0], [1.0, 0.0], [1e9, 2.0], [2.0, -1e9]])
    np.testing.assert_allclose(robust.trimmed_mean(values, equal(4)), [(2.0 + 5.0) / 2, -0.5])
    np.testing.assert_allclose(robust.trimmed_mean(values, equal(4), share=0), values.mean(0))


@settings(max_examples=10)
@given(seeds, sizes)
def test_the_geometric_median_has_the_smallest_sum_of_distances(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(n, 5)), rng.dirichlet(np.full(n, 3.0))
    found = robust.geometric_median(points @ points.T, weights) @ points

    def distances(x: np.ndarray) -> float:
        return float(weights @ np.linalg.norm(points - x, axis=1))

    best = minimize(distances, points.mean(0), method="Nelder-Mead", options={"xatol": 1e-6, "maxfev": 4000}).fun
    assert distances(found) <= best * (1 + 1e-4)


def test_of_equal_updates_all_averages_are_these(n: int = 6) -> None:
    same = np.tile(np.arange(4.0), (n, 1))
    for middle in (robust.median, robust.trimmed_mean):
        np.testing.assert_allclose(middle(same, equal(n)), same[0])
    for weigh in (robust.geometric_median, robust.multi_krum):
        np.testing.assert_allclose(weigh(same @ same.T, equal(n)) @ same, same[0])
    np.testing.assert_array_equal(robust.geometric_median(np.zeros((n, n)), equal(n)), equal(n))


@given(seeds, st.integers(5, 12))
def test_krum_keeps_those_with_the_closest_neighbours(seed: int, n: int) -> None:
    points = np.random.default_rng(seed).normal(size=(n, 3))
    f = (n - 3) // 2
    scores = []
    for i in range(n):
        away = sorted(float(((points[i] - points[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(away[: n - f - 2]))
    kept = sorted(range(n), key=scores.__getitem__)[: n - f]
    found = robust.multi_krum(points @ points.T, equal(n))
    assert sorted(np.flatnonzero(found)) == sorted(kept)
    assert found.sum() == pytest.approx(1)


def manifest() -> Manifest:
    return Manifest(entries={key: Entry(shape=shape, dtype="float32") for key, shape in SHAPES.items()})


def payload(seed: int, spread: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: spread * rng.normal(size=shape) for key, shape in SHAPES.items()}


def changed(reference: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    return {key: value + 0.05 * payload(seed)[key] for key, value in reference.items()}


def dense(tensors: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([(tensors[KEY_B] @ tensors[KEY_A]).ravel(), tensors[HEAD]])


def flat(tensors: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([tensors[key].ravel() for key in SHAPES])


@given(seeds)
def test_inner_products_of_changes_are_those_of_the_dense_matrices(seed: int) -> None:
    reference = payload(seed)
    sent = [changed(reference, seed + i) for i in range(1, 5)]
    changes = np.stack([dense(tensors) - dense(reference) for tensors in sent])
    found = gram_of_changes(sent, reference, SHAPES, [(KEY_A, KEY_B)])
    np.testing.assert_allclose(found, changes @ changes.T, atol=1e-9)
    apart = np.stack([flat(tensors) - flat(reference) for tensors in sent])
    np.testing.assert_allclose(gram_of_changes(sent, reference, SHAPES), apart @ apart.T, atol=1e-9)


ROBUST = sorted(set(RULES.names()) - {"factors", "product"})


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("attack", [-50.0, 1000.0])
def test_one_site_of_eight_moves_a_robust_average_less_than_honest_sites_differ(name: str, attack: float) -> None:
    reference = payload(0)
    honest = [changed(reference, i) for i in range(1, 8)]
    lying = {key: value + attack * payload(99)[key] for key, value in reference.items()}
    space = dense if name.startswith("product_") else flat
    clean = space(RULES[name].combine([(1 / 7, tensors) for tensors in honest], reference, manifest()))
    attacked = space(RULES[name].combine([(1 / 8, t) for t in [*honest, lying]], reference, manifest()))
    spread = max(np.linalg.norm(space(tensors) - clean) for tensors in honest)
    mean = "product" if name.startswith("product_") else "factors"
    moved = space(RULES[mean].combine([(1 / 8, t) for t in [*honest, lying]], reference, manifest()))
    assert np.linalg.norm(attacked - clean) < spread < np.linalg.norm(moved - clean)


@pytest.mark.parametrize("name", ROBUST)
def test_the_order_of_sites_does_not_matter(name: str) -> None:
    reference = payload(0)
    sent = [(1 / 6, changed(reference, i)) for i in range(1, 7)]
    space = dense if name.startswith("product_") else flat
    found = [space(RULES[name].combine(updates, reference, manifest())) for updates in (sent, sent[::-1])]
    np.testing.assert_allclose(*found, atol=1e-9)


@pytest.mark.parametrize("name", ["multi_krum", "product_multi_krum"])
def test_krum_changes_nothing_where_fewer_than_five_sites_have_changed_something_and_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    reference = payload(0)
    sent = [(1 / 6, changed(reference, i)) for i in range(1, 5)] + [(1 / 6, dict(reference))] * 2
    found = RULES[name].combine(sent, reference, manifest())
    for key, value in reference.items():
        np.testing.assert_array_equal(found[key], value)
    assert "needs 5 updates that change something, and there are 4" in caplog.text


def test_a_plan_refuses_a_rule_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match=r"multi_krum needs at least 5 sites.*the plan has 2.*median"):
        make_plan(method_args={"averaging": "multi_krum"}, sites=("a", "b"))
    with pytest.raises(ConfigError, match=r"median compares every value.*top_k 0.1.*geometric_median"):
        make_plan(method_args={"averaging": "median"}, top_k=0.1)
    assert make_plan(method_args={"averaging": "product_geometric_median"}, top_k=1.0).build_method().needs_matrices
