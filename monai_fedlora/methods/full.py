"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_fedlora.methods.base import Method, register


@register
@dataclass(frozen=True, kw_only=True)
class FedAvg(Method):
    """Every weight trains and every weight is averaged (McMahan et al., AISTATS 2017, algorithm 1).

    Fixed tables that are parameters only by name (position embeddings) stay frozen.
    """

    name = "fedavg"
    summary = "full fine-tuning, everything averaged"
    source = "McMahan et al., AISTATS 2017"

    def attach(self, network: Any) -> None:
        """Make every parameter trainable that the backbone marks as such at construction."""
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.endswith("pos_embed"))

    def is_shared(self, key: str, network: Any) -> bool:
        """Everything that trains travels."""
        return True
