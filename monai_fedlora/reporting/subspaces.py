"""Overlap of the subspaces of two low-rank updates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from monai_fedlora.adapters.lora import PRIVATE, SHARED

_FACTOR = re.compile(r"(.+)\.lora_([AB])\.([^.]+)\.weight")
_RELATIVE = 1e-7
"""Singular values below this fraction of the largest count as zero; factors are float32 (ours)."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Principal angles between two subspaces.

    Attributes:
        angles: principal angles in degrees, ascending, one for each dimension of the smaller subspace.
        dims: dimensions of the two subspaces.
        ambient: dimension of the surrounding space.
    """

    angles: tuple[float, ...]
    dims: tuple[int, int]
    ambient: int

    @property
    def share(self) -> float | None:
        """Mean squared cosine of the angles: 0 for orthogonal subspaces, 1 where one contains the other."""
        return float(np.mean(np.cos(np.radians(self.angles)) ** 2)) if self.angles else None

    @property
    def by_chance(self) -> float:
        """Expected :attr:`share` of two random subspaces: the larger dimension over that of the surrounding space."""
        return max(self.dims) / self.ambient


def layer_overlaps(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[Overlap, Overlap]]:
    """Overlap of column spaces and of row spaces of the shared and the private update, by adapted layer.

    Args:
        tensors: a personal model by state-dict key, with factors ``<layer>.lora_A.<adapter>.weight`` (r, d_in) and
            ``<layer>.lora_B.<adapter>.weight`` (d_out, r). Those of a convolution, (r, channels, \\*kernel) and
            (d_out, r, 1, ...), count as such matrices. Only layers with both adapters count.
    """
    factors: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for key, value in tensors.items():
        if match := _FACTOR.fullmatch(key):
            flat = np.asarray(value, dtype=np.float64).reshape(len(value), -1)
            factors.setdefault(match[1], {})[match[3], match[2]] = flat
    found = {}
    for layer, parts in factors.items():
        if all((adapter, factor) in parts for adapter in (SHARED, PRIVATE) for factor in "AB"):
            shared, private = (update_spaces(parts[a, "A"], parts[a, "B"]) for a in (SHARED, PRIVATE))
            found[layer] = (overlap(shared[0], private[0]), overlap(shared[1], private[1]))
    return found


def update_spaces(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal bases of the column space (d_out, k) and the row space (d_in, k) of B A, without building it.

    Args:
        a: A (r, d_in).
        b: B (d_out, r).

    Returns:
        The bases; k is the rank of B A, 0 for an untrained adapter.
    """
    left, inner_b = np.linalg.qr(b)
    right, inner_a = np.linalg.qr(a.T)
    u, s, vt = np.linalg.svd(inner_b @ inner_a.T)
    rank = int((s > _RELATIVE * s[0]).sum()) if s.size else 0
    return left @ u[:, :rank], right @ vt[:rank].T


def overlap(one: np.ndarray, other: np.ndarray) -> Overlap:
    """Principal angles between the spans of two orthonormal bases (d, k) and (d, l).

    Small angles are computed from sines and large ones from cosines, because each is inaccurate for the other ones
    (Björck and Golub, Math. Comp. 27, 1973).
    """
    narrow, wide = sorted((other, one), key=lambda basis: basis.shape[1])
    inner = wide.T @ narrow
    cosines = np.clip(np.linalg.svd(inner, compute_uv=False), 0, 1)
    sines = np.clip(np.linalg.svd(narrow - wide @ inner, compute_uv=False)[::-1], 0, 1)
    angles = np.where(cosines**2 >= 0.5, np.arcsin(sines), np.arccos(cosines)) if cosines.size else cosines
    return Overlap(angles=tuple(np.degrees(angles).tolist()), dims=(one.shape[1], other.shape[1]), ambient=one.shape[0])
