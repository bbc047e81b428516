"""Two heads in the place of one: a shared one and a private one on the same features."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from monai_fedlora.adapters.lora import PRIVATE, SHARED, Temporary, replace_module
from monai_fedlora.errors import ConfigError


class TwinHead(Temporary):
    """Map features (B, D) to w_s shared(x) + w_p private(x), logits (B, C).

    Both branches always take part, so that each has a gradient, zero where its weight is: processes that train
    together expect one from every parameter.

    Args:
        head: becomes the shared branch; the private one starts as its copy.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.shared = head
        self.private = copy.deepcopy(head)
        self.weights = {SHARED: 1.0, PRIVATE: 0.0}

    def forward(self, x: Tensor) -> Tensor:
        return self.weights[SHARED] * self.shared(x) + self.weights[PRIVATE] * self.private(x)

    def plain(self) -> nn.Linear:
        """One linear layer with the weighted sum of the branches' weights."""
        merged = copy.deepcopy(self.shared)
        with torch.no_grad():
            for name, value in merged.named_parameters():
                branches = (self.weights[branch] * self.get_parameter(f"{branch}.{name}") for branch in self.weights)
                value.copy_(sum(branches, start=torch.zeros_like(value)))
        return merged


def attach_twin_heads(network: Any) -> None:
    """Replace every head of a network by a :class:`TwinHead`, in place; keys gain ``shared.`` or ``private.``.

    Raises:
        ConfigError: a head has parameters outside linear layers.
    """
    heads = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.".startswith(network.head_prefixes)
    ]
    for name, _ in network.named_parameters():
        if name.startswith(network.head_prefixes) and name.rpartition(".")[0] not in heads:
            raise ConfigError(
                f"two heads side by side are made of linear layers, and {name} of the head belongs to a "
                f"{type(network.get_submodule(name.rpartition('.')[0])).__name__}; name the linear layer alone as head"
            )
    for name in heads:
        replace_module(network, name, TwinHead(cast(nn.Linear, network.get_submodule(name))))
