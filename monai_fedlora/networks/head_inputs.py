"""What a network's classification heads read: the image as one vector, for every family and every method alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def head_inputs(network: Any) -> Iterator[dict[str, Tensor]]:
    """Give the inputs (B, D) of all heads that the latest forward pass used, by the heads' names.

    A network that `torch.compile` has compiled shows none.

    Args:
        network: a backbone, with or without adapters and a side network.
    """
    found: dict[str, Tensor] = {}
    handles = [head.register_forward_pre_hook(partial(_keep, found, name)) for name, head in _heads(network)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def joined(inputs: dict[str, Tensor]) -> Tensor:
    """The inputs of all heads side by side, in the order of their names: (B, D) in float32."""
    return torch.cat([inputs[name].float() for name in sorted(inputs)], dim=1)


def _keep(found: dict[str, Tensor], name: str, head: nn.Module, arguments: tuple[Any, ...]) -> None:
    found[name] = arguments[0]


def _heads(network: Any) -> list[tuple[str, nn.Module]]:
    """The outermost modules under the head prefixes that are called."""
    heads = []
    for prefix in network.head_prefixes:
        module = network.get_submodule(prefix.removesuffix("."))
        own = module.items() if isinstance(module, nn.ModuleDict) else [("", module)]
        heads += [(f"{prefix}{name}", head) for name, head in own]
    return heads
