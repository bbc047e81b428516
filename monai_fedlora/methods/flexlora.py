"""FlexLoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.low_rank import is_factor
from monai_fedlora.methods.ranks import RankedLora
from monai_fedlora.methods.rules import Payload, Updates, average_products, factor_keys, with_products_length
from monai_fedlora.scope import Manifest


@register
@dataclass(frozen=True, kw_only=True)
class FlexLora(RankedLora):
    """Products B A of sites with different ranks are averaged and decomposed anew (Bai et al., NeurIPS 2024).

    Every site gets the leading part of the decomposition that its rank has room for, which is the best approximation
    of the mean product there is at that rank. How the singular values are divided between B and A, and what is
    computed in place of the paper's full-size decomposition, is said in
    :func:`monai_fedlora.methods.rules.average_products`.

    What differs: the server sends factors of the largest rank to everybody, and a site cuts them itself, so that its
    rank needs no message. A site's view of the model of an unseen site has the site's own rank too.
    """

    name = "flexlora"
    summary = "one LoRA, ranks may differ; the product B A is averaged and decomposed anew"
    source = "FlexLoRA, Bai et al., NeurIPS 2024"

    def starts_over(self, key: str, network: Any) -> bool:
        """Every factor: the server's new decomposition has other directions than the factors that the site trained."""
        return is_factor(key, SHARED)

    def aggregate(self, updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
        """Average the products and, if it is shared, the head."""
        averaged = super().aggregate(updates, reference, manifest)
        return averaged | average_products(updates, factor_keys(manifest.entries))

    def change_length(self, tensors: Payload, reference: Payload, manifest: Manifest) -> float:
        """Length of the changes to the products B A and to the head, where it is averaged."""
        return with_products_length(tensors, reference, manifest)
