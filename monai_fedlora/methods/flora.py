"""FLoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.adapters.dense import DELTA, shift_layers
from monai_fedlora.adapters.factors import draw_a, zero_b
from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.checks import check_whole
from monai_fedlora.methods.low_rank import is_factor
from monai_fedlora.methods.ranks import RankedLora
from monai_fedlora.methods.rules import Payload, Updates, add_products, average, factor_keys, with_products_length
from monai_fedlora.scope import DOWN, UP, Manifest


@register
@dataclass(frozen=True, kw_only=True)
class Flora(RankedLora):
    """A fresh adapter in every round, whose products are summed without error into the layer (Wang et al., NeurIPS
    2024).

        site:    (W0 + D) x + s B_k A_k x, with a new A_k and B_k = 0 in every round
        server:  D <- D + s sum_k n_k / n B_k A_k

    The paper sends the sites' factors, stacked, to every site, which adds their product to its weights. The sum D of
    all rounds travels here instead: it is the same update, and a site that misses a round or joins late is right with
    nothing but the last message. It costs more download where the stacked rank is below d_in d_out / (d_in + d_out).
    In float16 on the wire D is rounded once per round.

    What the paper does not say, and what we chose: the head is averaged (or private); A is drawn from ``a_seed``, the
    round and the layer, so that a round can be repeated.

    Args:
        a_seed: of the values of A.
    """

    name = "flora"
    summary = "a fresh LoRA per round, ranks may differ; the sum of products B A is added to the layer"
    source = "FLoRA, Wang et al., NeurIPS 2024"

    a_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("a_seed", self.a_seed)

    def adapt(self, network: Any, layers: Sequence[str]) -> None:
        """Add the dense update, zero, and the adapter."""
        shift_layers(network, layers)
        super().adapt(network, layers)

    def travels(self, key: str, network: Any) -> str | None:
        """Factors go up, the dense update comes down."""
        if is_factor(key, SHARED):
            return UP
        return DOWN if key.endswith(f".{DELTA}") else None

    def begin_round(self, network: Any, round_number: int) -> None:
        """Give the site a new adapter without effect, of the site's rank."""
        draw_a(network, SHARED, seed=f"{self.name}/{self.a_seed}/{round_number}")
        zero_b(network, SHARED)
        super().begin_round(network, round_number)

    def starts_over(self, key: str, network: Any) -> bool:
        """The factors: they are drawn anew in every round."""
        return is_factor(key, SHARED)

    def aggregate(self, updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
        """Add the sites' products to the dense updates; average the head."""
        down = manifest.down.entries
        combined = average(updates, (key for key in down if not key.endswith(f".{DELTA}")))
        for pair in factor_keys(manifest.entries):
            key = f"{pair[0].partition('.lora_A.')[0]}.base_layer.{DELTA}"
            combined[key] = add_products(updates, reference[key], pair=pair, scale=self.lora.scale)
        return combined

    def change_length(self, tensors: Payload, reference: Payload, manifest: Manifest) -> float:
        """Length of the dense updates s B A, which start at zero in every round, and of the head's change."""
        return with_products_length(tensors, reference, manifest, scale=self.lora.scale)
