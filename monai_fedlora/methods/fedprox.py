"""FedProx."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from monai_fedlora.methods.base import Penalty, register
from monai_fedlora.methods.checks import check_weight
from monai_fedlora.methods.proximal import pulled
from monai_fedlora.methods.trainable_part import AdaptersOrEverything


@register
@dataclass(frozen=True, kw_only=True)
class FedProx(AdaptersOrEverything):
    """FedAvg with L_k + mu / 2 ||w - w^t||^2, w^t being what the server sent (Li et al., MLSys 2020, eq. 2).

    What the paper does otherwise: all weights train, and sites may do different amounts of work. We chose adapters as
    the default, mu 0.01 (the paper tunes it over 0.001, 0.01, 0.1 and 1), and the same work everywhere. The distance is
    that of the parameters, so of A and B rather than of their product.

    Args:
        mu: at least 0; 0 is FedAvg, or FedIT for adapters.
    """

    name = "fedprox"
    summary = "one LoRA (or everything) averaged, held near what the server sent"
    source = "FedProx, Li et al., MLSys 2020"

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("mu", self.mu)

    def penalty(self, network: Any) -> AbstractContextManager[Penalty] | None:
        """mu / 2 ||w - w^t||^2 over what travels."""
        trained = ((name, p) for name, p in network.named_parameters() if p.requires_grad)
        return pulled(((p, p) for name, p in trained if self.is_shared(name, network)), mu=self.mu)
