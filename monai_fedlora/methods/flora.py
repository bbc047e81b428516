"""FLoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_fedlora.adapters.factors import draw_a, zero_b
from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.checks import check_whole
from monai_fedlora.methods.dense_update import DenselyUpdated
from monai_fedlora.methods.low_rank import is_factor
from monai_fedlora.methods.ranks import RankedLora
from monai_fedlora.methods.rules import Payload, with_products_length
from monai_fedlora.scope import UP, Manifest


@register
@dataclass(frozen=True, kw_only=True)
class Flora(DenselyUpdated, RankedLora):
    """A fresh adapter in every round, whose products are summed without error into the layer (Wang et al., NeurIPS
    2024).

        site:    (W0 + D) x + s B_k A_k x, with a new A_k and B_k = 0 in every round
        server:  D <- D + s sum_k n_k / n B_k A_k

    The paper sends the sites' factors, stacked, to every site, which adds their product to its weights. The sum D of
    all rounds travels here instead, see `DenselyUpdated`: it is the same update. It costs more download where the
    stacked rank is below d_in d_out / (d_in + d_out).

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

    def travels(self, key: str, network: Any) -> str | None:
        """Factors go up, the dense update comes down."""
        return UP if is_factor(key, SHARED) else super().travels(key, network)

    def begin_round(self, network: Any, round_number: int) -> None:
        """Give the site a new adapter without effect, of the site's rank."""
        draw_a(network, SHARED, seed=f"{self.name}/{self.a_seed}/{round_number}")
        zero_b(network, SHARED)
        super().begin_round(network, round_number)

    def starts_over(self, key: str, network: Any) -> bool:
        """The factors: they are drawn anew in every round."""
        return is_factor(key, SHARED)

    def change_length(self, tensors: Payload, reference: Payload, manifest: Manifest) -> float:
        """Length of the dense updates s B A, which start at zero in every round, and of the head's change."""
        return with_products_length(tensors, reference, manifest, scale=self.lora.scale)
