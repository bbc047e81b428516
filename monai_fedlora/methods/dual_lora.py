"""Med-DualLoRA."""

from __future__ import annotations

from dataclasses import dataclass

from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.low_rank import AveragedLora


@register
@dataclass(frozen=True, kw_only=True)
class DualLora(AveragedLora):
    """Shared and private adapters trained together; only the shared one is averaged.

    Implements Med-DualLoRA as described (arXiv 2603.10967). The paper does not give, and we chose: rank 8,
    alpha 16, no dropout, the attention's queries and values (in ConvViT with the keys, which they share a layer with)
    of the last two blocks, a shared head.
    """

    name = "dual_lora"
    summary = "shared + private LoRA, trained together; the shared one is averaged"
    source = "Med-DualLoRA, arXiv 2603.10967"
    adapters = (SHARED, PRIVATE)
