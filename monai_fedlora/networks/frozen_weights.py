"""Frozen weights of linear layers and convolutions, held in bfloat16 while a network computes in it.

Under autocast PyTorch converts the weight and the bias of every product anew each time it runs, unless they train: of a
frozen network that is half of all kernels. Here they are converted once, when a layer first runs, and the products take
these; the results are the same bits. The layers keep their own float32 weights, which are what is hashed, stored,
merged and exported, and forget the others when the context ends: while it lasts, frozen layers that have run take half
as much memory again. Those of a compiled network stay for its next context, where they are filled anew, so that nothing
is compiled or recorded again. What a layer computes without autocast is computed from its own weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

_FORWARD = "forward"


_forwards: WeakKeyDictionary[nn.Module, dict[nn.Module, HeldForward]] = WeakKeyDictionary()
"""Of each network: the same objects in all contexts, for which a compiled network need not be compiled again."""


class HeldForward:
    """In place of a frozen layer's `forward`: the same product, with weights that are in bfloat16 already.

    Args:
        layer: a linear layer or a convolution.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.ends = False
        self._held: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """What the layer makes of `x`."""
        layer = self.layer
        if not self.serves(x.device.type):
            result: Tensor = type(layer).forward(layer, x)
            return result
        weight, bias = self.held()
        if isinstance(layer, nn.Linear):
            return functional.linear(x, weight, bias)
        result = layer._conv_forward(x, weight, bias)
        return result

    def serves(self, kind: str) -> bool:
        """Whether a product on a kind of device takes bfloat16, and the layer is frozen still."""
        low = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.bfloat16
        return low and not self.ends and not self.layer.weight.requires_grad

    def held(self) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias in bfloat16."""
        if self._held is None:
            with torch.inference_mode(False), torch.no_grad():
                weight, bias = self._own()
                self._held = weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16)
        return self._held

    def hold_still(self) -> None:
        """Hold the weights as they are now where they were held before, which a recorded CUDA graph reads."""
        was_held = self._held is not None
        for tensor, own in zip(self.held(), self._own(), strict=True):
            if tensor is None or own is None:
                continue
            if was_held:
                tensor.copy_(own)
            else:
                torch._dynamo.mark_static_address(tensor)

    def forget(self) -> None:
        """Let go of what is held."""
        self._held = None

    def _own(self) -> tuple[Tensor, Tensor | None]:
        layer = self.layer
        return (layer.effective_weight if _is_shifted(layer) else layer.weight), layer.bias

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldForward:
        """A copy of a network goes ways of its own, and may change what is frozen here."""
        copied = HeldForward(copy.deepcopy(self.layer, memo))
        copied.ends = True
        return copied


@contextmanager
def frozen_in_bfloat16(network: nn.Module, *, enabled: bool = True) -> Iterator[None]:
    """Hold the frozen weights of a network's linear layers and convolutions in bfloat16, for products under autocast.

    Nothing else may change these weights inside the context. Layers that a context holds already, such as that of a
    training around that of an evaluation, are left to it; so are layers with a `forward` of their own.

    Args:
        network: on its device.
        enabled: False holds nothing.
    """
    layers = [layer for layer in network.modules() if _can_be_held(layer)] if enabled else []
    if layers:
        known = _forwards.get(network, {})
        _forwards[network] = {layer: known.get(layer) or HeldForward(layer) for layer in layers}
    is_compiled = any(getattr(module, "_compiled_call_impl", None) for module in network.modules())
    try:
        for layer in layers:
            layer.__dict__[_FORWARD] = forward = _forwards[network][layer]
            if is_compiled:
                forward.hold_still()
        yield
    finally:
        for layer in layers:
            if (forward := layer.__dict__.pop(_FORWARD, None)) and not is_compiled:
                forward.forget()


def product_weight(layer: nn.Linear) -> Tensor:
    """The weight for a product in a linear layer's place: the held one where there is one, else the layer's own."""
    forward = vars(layer).get(_FORWARD)
    if isinstance(forward, HeldForward) and forward.serves(layer.weight.device.type):
        return forward.held()[0]
    return layer.weight


def _can_be_held(layer: Any) -> bool:
    forward = type(layer).forward
    known = forward is nn.Linear.forward or _is_shifted(layer)
    known = known or (isinstance(layer, _ConvNd) and forward in _CONVOLUTIONS)
    return known and _FORWARD not in vars(layer) and not any(p.requires_grad for p in layer.parameters())


_CONVOLUTIONS = tuple(kind.forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _is_shifted(layer: Any) -> bool:
    """Whether a linear layer's product takes another weight than its own."""
    return isinstance(layer, nn.Linear) and hasattr(layer, "effective_weight")
