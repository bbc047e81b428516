"""Frozen layers that carry a dense update beside their own weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_fedlora.adapters.lora import Temporary, replace_module

DELTA = "lora_delta"


class ShiftedLinear(nn.Linear, Temporary):
    """A frozen linear layer that computes (W0 + D) x + b with a dense update D that does not train.

    Args:
        layer: gives W0 and b, which are not copied. D (d_out, d_in) starts at zero and is the buffer ``lora_delta``.
    """

    lora_delta: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer(DELTA, torch.zeros_like(layer.weight, requires_grad=False))

    @property
    def effective_weight(self) -> Tensor:
        """W0 + D."""
        return self.weight + self.lora_delta

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.effective_weight, self.bias)

    def plain(self) -> nn.Linear:
        """A linear layer with W0 + D."""
        merged = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        merged.weight, merged.bias = nn.Parameter(self.effective_weight, requires_grad=False), self.bias
        return merged


def shift_layers(network: Any, names: Iterable[str]) -> None:
    """Replace the linear layers with these dotted names by :class:`ShiftedLinear`, in place."""
    for name in names:
        replace_module(network, name, ShiftedLinear(network.get_submodule(name)))
