"""The forward pass of an adapted linear layer with its adapters merged into the weight: one product per call."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def merged_linear(layer: Any, x: Tensor) -> Tensor:
    """What an adapted layer computes, with W + s B A as the weight of a single product.

    PEFT computes W x + s B (A x), which reads the tokens once more for every adapter, forward and backward. With the
    adapters in the weight they cost a product of the weight's own size for the whole batch. The gradient then passes
    through that of the full weight, which is for free where the weight trains too, and a waste where it does not.

    Args:
        layer: a linear layer, with or without adapters. One whose adapters drop inputs out, or whose adapters are
            merged, switched off or no plain LoRA, runs as it is.
        x: (..., d_in).

    Returns:
        (..., d_out), equal to ``layer(x)`` but for rounding.
    """
    names = [] if type(layer) is nn.Linear else plain_adapters(layer)
    if not names or not all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values()):
        result: Tensor = layer(x)
        return result
    base = layer.get_base_layer()
    weight = base.weight
    for name in names:
        weight = weight + layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    return functional.linear(x, weight, base.bias)


def plain_adapters(layer: Any) -> list[str]:
    """The adapters that an adapted layer adds to W x as s B A x at this moment, whether or not they drop inputs out.

    The list is empty where the layer computes something else: its adapters are merged, switched off or no plain LoRA.
    """
    if layer.merged or layer.disable_adapters or layer.lora_variant:
        return []
    if type(layer.get_base_layer()) is not nn.Linear:
        return []
    return [name for name in layer.active_adapters if name in layer.lora_A]
