"""RoLoRA: A and B of a shared adapter take turns, so that averaging one of them averages their product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.low_rank import LoraMethod, is_factor


@dataclass(frozen=True, kw_only=True)
class RoLora(LoraMethod):
    """B trains in even rounds and A in odd ones (Chen et al., NeurIPS 2025).

    While one factor is the same everywhere, the mean of the products B A is the product with the mean of the other one.
    The factor that rests is sent back as it came, which the paper's implementation would leave out.
    """

    name = "rolora"
    summary = "one LoRA; A and B are trained and averaged in turn"
    source = "RoLoRA, Chen et al., NeurIPS 2025, arXiv 2502.01755"
    adapters = (SHARED,)

    def begin_round(self, network: Any, round_number: int) -> None:
        """Let one factor rest."""
        trains = "A" if round_number % 2 else "B"
        for key, parameter in network.named_parameters():
            if is_factor(key, SHARED):
                parameter.requires_grad_(f".lora_{trains}." in key)
