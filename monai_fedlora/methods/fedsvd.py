"""FedSVD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.adapters.factors import freeze_a
from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.low_rank import LoraMethod
from monai_fedlora.methods.rules import Payload, Updates, average, factor_keys, orthonormal_factors
from monai_fedlora.scope import DOWN, Manifest


@register
@dataclass(frozen=True, kw_only=True)
class FedSvd(LoraMethod):
    """Sites train B; the server makes the rows of A orthonormal, the product unchanged (Lee et al., NeurIPS 2025).

        site k:  trains B_k, from the server's B, with the server's A
        server:  B <- sum_k n_k / n B_k,   B A = U S V^T,   A <- V^T,   B <- U S

    With one A for all, averaging B averages the products exactly, and the decomposition cuts nothing off. A bounded A
    bounds the gradient of B, which is what the paper is after where noise is added to gradients; no noise is added
    here. A starts as LoRA does, as in the authors' code, and is orthonormal from the second round on.

    Every A has the rows' span of the first one: the right singular vectors of B A are combinations of rows of A. What
    changes is how long these are, their angles and their order. Where B has a lower rank than A, the remaining rows
    are chosen from that span too (ours); the authors' code leaves them to chance.
    """

    name = "fedsvd"
    summary = "one LoRA: B is trained and averaged; the server makes A's rows orthonormal"
    source = "FedSVD, Lee et al., NeurIPS 2025, arXiv 2505.12805"
    adapters = (SHARED,)

    @property
    def needs_matrices(self) -> bool:
        """The product is decomposed as a matrix."""
        return True

    def adapt(self, network: Any, layers: Sequence[str]) -> None:
        """Add the adapter, with an A that does not train."""
        super().adapt(network, layers)
        freeze_a(network, SHARED)

    def travels(self, key: str, network: Any) -> str | None:
        """A comes down."""
        return DOWN if f".lora_A.{SHARED}." in key else None

    def starts_over(self, key: str, network: Any) -> bool:
        """B: the columns of a new one belong to other rows of A."""
        return f".lora_B.{SHARED}." in key

    def aggregate(self, updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
        """Average B and the head, and take the product apart anew."""
        combined = average(updates, manifest.up.entries)
        for key_a, key_b in factor_keys(manifest.entries):
            combined[key_a], combined[key_b] = orthonormal_factors(reference[key_a], combined[key_b])
        return {key: combined[key] for key in manifest.down.entries}
