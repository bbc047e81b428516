"""FedEx-LoRA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_fedlora.methods.base import register
from monai_fedlora.methods.dense_update import DenselyUpdated
from monai_fedlora.methods.rules import Payload, Updates, change_length, factor_keys, products_length
from monai_fedlora.scope import Manifest


@register
@dataclass(frozen=True, kw_only=True)
class FedExLora(DenselyUpdated):
    """Factors are averaged apart, and what that misses of the mean product goes into the layer (Singhal et al., ACL
    2025, arXiv 2410.09432).

        site k:  (W0 + D) x + s B_k A_k x, with A_k and B_k that start from the server's A and B
        server:  A <- sum_k n_k / n A_k,   B <- sum_k n_k / n B_k,
                 D <- D + s (sum_k n_k / n B_k A_k - B A)

    so that W0 + D + s B A is the mean of the sites' layers without error. The paper's mean is plain; here sites weigh
    by their cases, as in every method. The sum D of all rounds travels, not the residual of one. A and B of the
    residual are those that the sites receive, so that rounding them to float16 is made good in D as well.

    What the paper does not say, and what we chose: the head is averaged (or private).
    """

    name = "fedex_lora"
    summary = "one LoRA, A and B averaged; what that misses of the mean product is added to the layer"
    source = "FedEx-LoRA, Singhal et al., ACL 2025, arXiv 2410.09432"

    def added(self, updates: Updates, averaged: Payload) -> Updates:
        """The sites' products, without that of the averaged factors."""
        return [*updates, (-1.0, averaged)]

    def change_length(self, tensors: Payload, reference: Payload, manifest: Manifest) -> float:
        """Length of the changes of the factors and the head, and of the products s B A.

        The layer moves by the mean product, and the factors from which sites go on by their own mean: a change is
        long where either is.
        """
        up = manifest.up.entries
        products = products_length(tensors, reference, factor_keys(up), scale=self.lora.scale)
        return float(np.hypot(change_length(tensors, reference, up), products))
