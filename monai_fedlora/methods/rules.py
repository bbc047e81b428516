"""How a server combines updates: pure functions of arrays, in float64."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from monai_fedlora.catalogues import Catalogue
from monai_fedlora.methods import robust
from monai_fedlora.scope import Manifest

Payload = Mapping[str, np.ndarray]
Updates = Sequence[tuple[float, Payload]]
"""Weight n_k / n and tensors of each site, in the order of the sites' names."""

_log = logging.getLogger(__name__)
_A, _B = ".lora_A.", ".lora_B."
KRUM_SITES = 5
"""The fewest sites of which Krum can leave one out."""
_ROW_NORM = 3**-0.5
"""Norm, on average, of a row of A as LoRA starts it: d_in values of variance 1 / (3 d_in)."""


def average(updates: Updates, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """theta <- sum_k n_k / n theta_k for each key (McMahan et al., AISTATS 2017, algorithm 1)."""
    return {key: _weighted_sum((weight, payload[key]) for weight, payload in updates) for key in keys}


def factor_keys(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Keys of A and B of every adapted layer among ``keys``."""
    return [(key, key.replace(_A, _B)) for key in keys if _A in key]


def average_products(updates: Updates, pairs: Iterable[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Factors of the best approximation of sum_k n_k / n B_k A_k at the factors' rank, without error where it fits.

    Bai et al., FlexLoRA, NeurIPS 2024: the mean product U S V^T is cut after the largest r singular values. It is
    never built: with the sites' factors side by side, M = [p_1 B_1 ... p_K B_K] [A_1; ...; A_K] = Q_B R_B R_A^T Q_A^T,
    and the decomposition is that of the small matrix R_B R_A^T.

    The paper leaves open how S is divided. Here A gets c V^T and B gets U S / c, with rows of A as long as they are
    at LoRA's start, c = 1 / sqrt(3): an A without the singular values keeps a direction that is not in use yet
    trainable, which sqrt(S) in both factors would freeze at zero. Where all products are zero, as before the first
    step, A is averaged.

    Args:
        updates: with A (r, d_in) and B (d_out, r) for each pair.
        pairs: keys of A and B, see :func:`factor_keys`.

    Returns:
        A and B of each pair; singular values descend, so that the first rows and columns matter most.
    """
    combined = {}
    for key_a, key_b in pairs:
        a = np.concatenate([payload[key_a].astype(np.float64) for _, payload in updates])
        b = np.concatenate([weight * payload[key_b].astype(np.float64) for weight, payload in updates], axis=1)
        rank = len(updates[0][1][key_a])
        if b.any():
            combined[key_a], combined[key_b] = _refactor(a, b, rank)
        else:
            combined |= average(updates, (key_a, key_b))
    return combined


def add_products(updates: Updates, reference: np.ndarray, *, pair: tuple[str, str], scale: float) -> np.ndarray:
    """D + s sum_k n_k / n B_k A_k, a dense update (d_out, d_in) (Wang et al., FLoRA, NeurIPS 2024)."""
    key_a, key_b = pair
    a = np.concatenate([payload[key_a].astype(np.float64) for _, payload in updates])
    b = np.concatenate([weight * payload[key_b].astype(np.float64) for weight, payload in updates], axis=1)
    return reference.astype(np.float64) + scale * (b @ a)


def orthonormal_factors(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors with the product B A of which A has orthonormal rows: V^T and U S of B A = U S V^T.

    Lee et al., FedSVD, NeurIPS 2025. The product is never built: with A = R^T Q^T the right singular vectors of B A are
    those of B R^T, turned by Q. So B R^T V V^T Q^T is B A without error, and of a B of lower rank than r, zero among
    them, the remaining rows of A are in the span of the old ones.

    Args:
        a: (r, d_in).
        b: (d_out, r).

    Returns:
        A (r, d_in) and B (d_out, r); columns of B are orthogonal, the longest first. Where r is above d_in, the last
        rows and columns are zero.
    """
    basis, core = np.linalg.qr(a.astype(np.float64).T)
    turned = b.astype(np.float64) @ core.T
    vt = np.linalg.svd(np.linalg.qr(turned, mode="r"))[2]
    new_a, new_b = np.zeros(a.shape), np.zeros(b.shape)
    new_a[: len(vt)], new_b[:, : len(vt)] = vt @ basis.T, turned @ vt.T
    return new_a, new_b


def change_length(tensors: Payload, reference: Payload, keys: Iterable[str]) -> float:
    """Euclidean length of the change of some tensors; those that were not sent change from zero."""
    squares = 0.0
    for key in keys:
        squares += float(np.square(tensors[key].astype(np.float64) - np.asarray(reference.get(key, 0.0), float)).sum())
    return squares**0.5


def products_length(
    tensors: Payload, reference: Payload, pairs: Iterable[tuple[str, str]], *, scale: float = 1.0
) -> float:
    """Euclidean length of the changes s (B A - B_0 A_0), which are never built; factors not sent change from zero.

    With the factors side by side, |[B, -B_0] [A; A_0]|^2 is the sum of the elementwise product of two matrices of
    size 2 r.
    """
    squares = 0.0
    for key_a, key_b in pairs:
        a, b = _beside(tensors, reference, key_a, key_b)
        squares += max(float(((a @ a.T) * (b.T @ b)).sum()), 0.0)
    return scale * squares**0.5


def with_products_length(tensors: Payload, reference: Payload, manifest: Manifest, *, scale: float = 1.0) -> float:
    """Euclidean length of the change of all that goes up, with the factors of an adapter counted by their product."""
    pairs = factor_keys(manifest.up.entries)
    factors = {key for pair in pairs for key in pair}
    others = change_length(tensors, reference, (key for key in manifest.up.entries if key not in factors))
    return float(np.hypot(others, products_length(tensors, reference, pairs, scale=scale)))


def gram_of_changes(
    payloads: Sequence[Payload], reference: Payload, keys: Iterable[str], pairs: Iterable[tuple[str, str]] = ()
) -> np.ndarray:
    """Inner products of the sites' changes (n, n); those of ``pairs`` are changes of B A, which are never built.

    Args:
        payloads: of the n sites.
        reference: what was sent; tensors that were not sent change from zero.
        keys: of all tensors that count.
        pairs: of A and B among them that count by their product.
    """
    pairs = list(pairs)
    factors = {key for pair in pairs for key in pair}
    found = np.zeros((len(payloads), len(payloads)))
    for key in keys:
        if key not in factors:
            before = np.asarray(reference.get(key, 0.0), np.float64)
            changes = np.stack([(payload[key].astype(np.float64) - before).ravel() for payload in payloads])
            found += changes @ changes.T
    for key_a, key_b in pairs:
        sides = [_beside(payload, reference, key_a, key_b) for payload in payloads]
        for i, (a, b) in enumerate(sides):
            for j, (other_a, other_b) in enumerate(sides[: i + 1]):
                found[i, j] += (part := float(((a @ other_a.T) * (b.T @ other_b)).sum()))
                found[j, i] += part if i != j else 0.0
    return found


def _beside(payload: Payload, reference: Payload, key_a: str, key_b: str) -> tuple[np.ndarray, np.ndarray]:
    """Factors whose product is the change of B A."""
    a, b = payload[key_a].astype(np.float64), payload[key_b].astype(np.float64)
    if key_a in reference:
        a = np.concatenate([a, reference[key_a].astype(np.float64)])
        b = np.concatenate([b, -reference[key_b].astype(np.float64)], axis=1)
    return a, b


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a server combines the updates of a round, where a method leaves that open.

    Attributes:
        combine: from the updates, what was sent and the manifest to everything that travels down, in float64; see
            :meth:`monai_fedlora.methods.base.Method.aggregate`, which also says when the last update is no site's but
            what was sent. It has to give the same bits whenever it is given the same.
        products: whether what it combines is the products B A of the adapters: their length is then what one site's
            influence is limited by, and sites go on from new factors.
        least_sites: that it takes; a federation of fewer is refused, and a round of fewer answers does not count.
        coordinates: whether each coordinate is compared with the same of other sites, so that all sites have to send
            it.
    """

    combine: Callable[[Updates, Payload, Manifest], dict[str, np.ndarray]]
    products: bool = False
    least_sites: int = 1
    coordinates: bool = False


def _combined(
    updates: Updates,
    reference: Payload,
    manifest: Manifest,
    *,
    products: bool,
    weigh: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The mean of factors or of products, with other weights where ``weigh`` says so from the changes."""
    pairs = factor_keys(manifest.entries) if products else []
    if weigh is not None:
        gram = gram_of_changes([payload for _, payload in updates], reference, manifest.down.entries, pairs)
        weights = weigh(gram, np.array([weight for weight, _ in updates]))
        updates = [(float(weight), payload) for weight, (_, payload) in zip(weights, updates, strict=True)]
    return average(updates, manifest.down.entries) | average_products(updates, pairs)


def _of_coordinates(
    updates: Updates,
    reference: Payload,
    manifest: Manifest,
    *,
    middle: Callable[[np.ndarray, np.ndarray], np.ndarray],
    products: bool,
) -> dict[str, np.ndarray]:
    """A middle value of each coordinate of the tensors, or of the products, which are then factored anew."""
    weights = np.array([weight for weight, _ in updates])
    combined = {
        key: middle(np.stack([payload[key].astype(np.float64) for _, payload in updates]), weights)
        for key in manifest.down.entries
    }
    for key_a, key_b in factor_keys(manifest.entries) if products else []:
        dense = [payload[key_b].astype(np.float64) @ payload[key_a].astype(np.float64) for _, payload in updates]
        found = middle(np.stack(dense), weights)
        if found.any():
            rank = len(updates[0][1][key_a])
            combined[key_a], combined[key_b] = _refactor(np.eye(found.shape[1]), found, rank)
    return combined


def _krum(updates: Updates, reference: Payload, manifest: Manifest, *, products: bool) -> dict[str, np.ndarray]:
    """Multi-Krum among the updates that change something; too few of them leave everything as it was sent."""
    moving = [
        (weight, payload)
        for weight, payload in updates
        if any((payload[key] != reference.get(key, 0.0)).any() for key in manifest.up.entries)
    ]
    if len(moving) < KRUM_SITES:
        _log.warning(
            "multi_krum leaves the shared tensors as they were sent: it needs %d updates that change something, and "
            "there are %d",
            KRUM_SITES,
            len(moving),
        )
        return {key: reference[key].astype(np.float64) for key in manifest.down.entries}
    total = sum(weight for weight, _ in moving)
    return _combined(
        [(weight / total, payload) for weight, payload in moving],
        reference,
        manifest,
        products=products,
        weigh=robust.multi_krum,
    )


def _rules() -> dict[str, Rule]:
    found = {
        "factors": Rule(combine=partial(_combined, products=False)),
        "product": Rule(combine=partial(_combined, products=True), products=True),
    }
    for prefix, products in (("", False), ("product_", True)):
        for name, middle in (("median", robust.median), ("trimmed_mean", robust.trimmed_mean)):
            combine = partial(_of_coordinates, middle=middle, products=products)
            found[prefix + name] = Rule(combine=combine, products=products, coordinates=True)
        combine = partial(_combined, products=products, weigh=robust.geometric_median)
        found[prefix + "geometric_median"] = Rule(combine=combine, products=products)
        combine = partial(_krum, products=products)
        found[prefix + "multi_krum"] = Rule(combine=combine, products=products, least_sites=KRUM_SITES)
    return found


def _problem(found: Any, name: str) -> str | None:
    return None if isinstance(found, Rule) else f"{found!r:.80}, which is no monai_fedlora.methods.rules.Rule"


RULES: Catalogue[Rule] = Catalogue(
    "rules",
    word="rule of averaging",
    built_in=_rules(),
    problem=_problem,
)
"""All rules by name."""


def _refactor(a: np.ndarray, b: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    basis_a, core_a = np.linalg.qr(a.T)
    basis_b, core_b = np.linalg.qr(b)
    u, singular, vt = np.linalg.svd(core_b @ core_a.T, full_matrices=False)
    kept = min(rank, len(singular))
    new_a, new_b = np.zeros((rank, a.shape[1])), np.zeros((b.shape[0], rank))
    new_a[:kept] = _ROW_NORM * (basis_a @ vt[:kept].T).T
    new_b[:, :kept] = basis_b @ u[:, :kept] * (singular[:kept] / _ROW_NORM)
    return new_a, new_b


def _weighted_sum(terms: Iterable[tuple[float, np.ndarray]]) -> np.ndarray:
    total: np.ndarray | None = None
    for weight, values in terms:
        part = weight * values.astype(np.float64)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("there is no update to combine")
    return total
