"""Ditto."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from monai_fedlora.adapters.active_adapters import set_weights, with_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.adapters.twin_head import attach_twin_heads
from monai_fedlora.methods.base import Penalty, Phase, register
from monai_fedlora.methods.checks import check_fraction, check_weight
from monai_fedlora.methods.low_rank import PRIVATE_ONLY, SHARED_ONLY, AveragedLora
from monai_fedlora.methods.proximal import pulled


@register
@dataclass(frozen=True, kw_only=True)
class Ditto(AveragedLora):
    """A global model that is averaged, and a personal one held near it (Li et al., ICML 2021, algorithm 1).

    Both are an adapter and a head on the same frozen backbone; in the paper they are whole networks. The global model
    w takes its steps first, on L_k(w). Then the personal model v takes its own on L_k(v) + mu / 2 ||v - w^t||^2, where
    w^t is what the server sent at the start of the round, as in the paper's algorithm.

    What the paper leaves open, and what we chose: mu 0.1; the round's steps are divided between the models; v starts as
    w^0 at a site that is there from the first round, and as a fresh adapter with the site's first head at one that
    joins later.

    Args:
        mu: pull towards the global model, at least 0; 0 trains the personal model alone.
        personal_share: part of the round's steps for the personal model, above 0 and below 1.
    """

    name = "ditto"
    summary = "a global LoRA and head averaged; personal ones of their own held near them"
    source = "Ditto, Li et al., ICML 2021"
    adapters = (SHARED, PRIVATE)
    heads = ("shared",)
    personal_apart = True

    head: Literal["shared"] = "shared"
    mu: float = 0.1
    personal_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("mu", self.mu)
        check_fraction("personal_share", self.personal_share)

    def attach(self, network: Any) -> None:
        """Add both adapters and both heads; the network computes the personal model."""
        attach_twin_heads(network)
        super().attach(network)
        set_weights(network, PRIVATE_ONLY)

    def begin_round(self, network: Any, round_number: int) -> None:
        """Start the personal model at the global one."""
        if round_number == 0:
            with torch.no_grad():
                for personal, shared in _pairs(network):
                    personal.copy_(shared)

    def phases(self, network: Any) -> Sequence[Phase]:
        """The global model, then the personal one."""
        return (
            Phase(
                share=1 - self.personal_share,
                trains=lambda key: f".{SHARED}." in key,
                view=lambda: with_weights(network, SHARED_ONLY),
            ),
            Phase(share=self.personal_share, trains=lambda key: f".{PRIVATE}." in key),
        )

    def penalty(self, network: Any) -> AbstractContextManager[Penalty] | None:
        """mu / 2 ||v - w^t||^2; the global model's steps do not see its gradient."""
        return pulled(_pairs(network), mu=self.mu)


def _pairs(network: Any) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """The parameters of the personal model, each with the global model's."""
    parameters = dict(network.named_parameters())
    private, shared = f".{PRIVATE}.", f".{SHARED}."
    return [(p, parameters[name.replace(private, shared)]) for name, p in parameters.items() if private in name]
