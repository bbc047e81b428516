"""Writing an adapter's factors: drawn anew, zeroed, or cut to a smaller rank."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from monai_fedlora.adapters.lora import lora_layers


@torch.no_grad()
def draw_a(network: nn.Module, adapter: str, *, seed: str) -> None:
    """Draw every A (r, d_in, ...) of an adapter from the uniform distribution in which PEFT starts it.

    The values depend on ``seed`` and the layer's name alone, so that networks with other histories get the same.
    """
    for name, layer in lora_layers(network).items():
        weight = layer.lora_A[adapter].weight
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big"))
        unit = torch.rand(weight.shape, generator=generator, device="cpu")
        weight.copy_((2 * unit - 1) * weight[0].numel() ** -0.5)


@torch.no_grad()
def zero_b(network: nn.Module, adapter: str) -> None:
    """Set every B (d_out, r) of an adapter to zero, so that it has no effect."""
    for layer in lora_layers(network).values():
        layer.lora_B[adapter].weight.zero_()


@torch.no_grad()
def truncate(network: nn.Module, adapter: str, *, rank: int) -> None:
    """Keep the first ``rank`` rows of every A and columns of every B, and set the rest to zero.

    What is zero in A and in B has no gradient and does not decay, so that training leaves it there.
    """
    for layer in lora_layers(network).values():
        layer.lora_A[adapter].weight[rank:] = 0
        layer.lora_B[adapter].weight[:, rank:] = 0


def freeze_a(network: Any, adapter: str) -> None:
    """Let the B of an adapter train without its A."""
    for layer in lora_layers(network).values():
        layer.lora_A[adapter].requires_grad_(False)
