"""Which adapters and heads a network computes with, and how much each counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from monai_fedlora.adapters.lora import lora_layers
from monai_fedlora.adapters.twin_head import TwinHead


def set_weights(network: nn.Module, weights: Mapping[str, float]) -> None:
    """Let each named adapter count ``weights[name]`` times its alpha / r, and each such branch of a twin head so much.

    Adapters and branches that ``weights`` does not name keep what they have.
    """
    for layer in lora_layers(network).values():
        for adapter, weight in weights.items():
            layer.set_scale(adapter, weight)
    for head in _twin_heads(network):
        head.weights.update({branch: weight for branch, weight in weights.items() if branch in head.weights})


@contextmanager
def with_weights(network: nn.Module, weights: Mapping[str, float]) -> Iterator[None]:
    """Set the weights of adapters and heads inside the block, see :func:`set_weights`."""
    layers, heads = list(lora_layers(network).values()), _twin_heads(network)
    before = [dict(layer.scaling) for layer in layers], [dict(head.weights) for head in heads]
    set_weights(network, weights)
    try:
        yield
    finally:
        for layer, scaling in zip(layers, before[0], strict=True):
            layer.scaling.update(scaling)
        for head, own in zip(heads, before[1], strict=True):
            head.weights.update(own)


def _twin_heads(network: nn.Module) -> list[TwinHead]:
    return [module for module in network.modules() if isinstance(module, TwinHead)]
