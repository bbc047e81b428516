"""FFA-LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_fedlora.adapters.factors import draw_a, freeze_a
from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.checks import check_whole
from monai_fedlora.methods.low_rank import LoraMethod


@register
@dataclass(frozen=True, kw_only=True)
class FfaLora(LoraMethod):
    """One adapter of which only B trains and travels; A is fixed and equal everywhere (Sun et al., ICLR 2024).

    With one A for all, averaging B averages the products B A exactly. A is never sent: every end draws it from
    ``a_seed`` and the layer's name, whatever the site's own seed is.

    Args:
        a_seed: of the values of A (ours: 0).
    """

    name = "ffa_lora"
    summary = "one LoRA with a fixed, common A; B is averaged, which is exact"
    source = "FFA-LoRA, Sun et al., ICLR 2024"
    adapters = (SHARED,)

    a_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("a_seed", self.a_seed)

    def attach(self, network: Any) -> None:
        """Add the adapter with the common A, frozen."""
        super().attach(network)
        draw_a(network, SHARED, seed=f"{self.name}/{self.a_seed}")
        freeze_a(network, SHARED)
