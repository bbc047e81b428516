"""How a server combines updates: pure functions of arrays, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.catalogues import Catalogue
from monai_fedlora.scope import Manifest

Payload = Mapping[str, np.ndarray]
Updates = Sequence[tuple[float, Payload]]
"""Weight n_k / n and tensors of each site, in the order of the sites' names."""

_A, _B = ".lora_A.", ".lora_B."
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
        a, b = tensors[key_a].astype(np.float64), tensors[key_b].astype(np.float64)
        if key_a in reference:
            a = np.concatenate([a, reference[key_a].astype(np.float64)])
            b = np.concatenate([b, -reference[key_b].astype(np.float64)], axis=1)
        squares += max(float(((a @ a.T) * (b.T @ b)).sum()), 0.0)
    return scale * squares**0.5


def with_products_length(tensors: Payload, reference: Payload, manifest: Manifest, *, scale: float = 1.0) -> float:
    """Euclidean length of the change of all that goes up, with the factors of an adapter counted by their product."""
    pairs = factor_keys(manifest.up.entries)
    factors = {key for pair in pairs for key in pair}
    others = change_length(tensors, reference, (key for key in manifest.up.entries if key not in factors))
    return float(np.hypot(others, products_length(tensors, reference, pairs, scale=scale)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a server combines the updates of a round, where a method leaves that open.

    Attributes:
        combine: from the updates, what was sent and the manifest to everything that travels down, in float64; see
            :meth:`monai_fedlora.methods.base.Method.aggregate`, which also says when the last update is no site's but
            what was sent. It has to give the same bits whenever it is given the same.
        products: whether what it combines is the products B A of the adapters: their length is then what one site's
            influence is limited by, and sites go on from new factors.
    """

    combine: Callable[[Updates, Payload, Manifest], dict[str, np.ndarray]]
    products: bool = False


def _factors(updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
    return average(updates, manifest.down.entries)


def _products(updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
    return average(updates, manifest.down.entries) | average_products(updates, factor_keys(manifest.entries))


def _problem(found: Any, name: str) -> str | None:
    return None if isinstance(found, Rule) else f"{found!r:.80}, which is no monai_fedlora.methods.rules.Rule"


RULES: Catalogue[Rule] = Catalogue(
    "rules",
    word="rule of averaging",
    built_in={"factors": Rule(combine=_factors), "product": Rule(combine=_products, products=True)},
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
