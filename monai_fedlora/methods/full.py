"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_fedlora.methods.base import Method, register


@register
@dataclass(frozen=True, kw_only=True)
class FedAvg(Method):
    """Every weight trains and every weight is averaged (McMahan et al., AISTATS 2017, algorithm 1).

    Buffers (position tables) are no parameters; they neither train nor travel.
    """

    name = "fedavg"
    summary = "full fine-tuning, everything averaged"
    source = "McMahan et al., AISTATS 2017"

    def attach(self, network: Any) -> None:
        """Make every parameter trainable."""
        network.requires_grad_(True)

    def is_shared(self, key: str, network: Any) -> bool:
        """Everything that trains travels."""
        return True
