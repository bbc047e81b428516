"""An adapted linear layer whose own weight trains too, at the cost of the layer alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def folded(layer: Any, x: Tensor) -> Tensor:
    """What an adapted layer computes, with W + s B A as the weight of a single product.

    PEFT computes W x + s B (A x), which reads the tokens once more for every adapter, forward and backward. With the
    adapters in the weight they cost a product of the weight's own size for the whole batch. The gradient then passes
    through that of the full weight, which is for free where the weight trains too, and a waste where it does not.

    Args:
        layer: a linear layer, with or without PEFT's adapters. One whose adapters drop inputs out, or whose adapters
            are merged, switched off or no plain LoRA, runs as PEFT runs it.
        x: (..., d_in).

    Returns:
        (..., d_out), equal to ``layer(x)`` but for rounding.
    """
    if type(layer) is nn.Linear or not (plain_lora(layer) and _drops_nothing(layer)):
        result: Tensor = layer(x)
        return result
    base = layer.get_base_layer()
    weight = base.weight
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            weight = weight + layer.scaling[adapter] * (layer.lora_B[adapter].weight @ layer.lora_A[adapter].weight)
    return functional.linear(x, weight, base.bias)


def plain_lora(layer: Any) -> bool:
    """Whether an adapted linear layer computes W x + sum s B A x at this moment, but for dropout of the inputs."""
    if layer.merged or layer.disable_adapters or layer.lora_variant:
        return False
    return type(layer.get_base_layer()) is nn.Linear


def _drops_nothing(layer: Any) -> bool:
    return all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
