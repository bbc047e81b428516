"""Frozen weights of linear layers and convolutions, held in bfloat16 while a network computes in it.

Under autocast PyTorch converts the weight and the bias of every product anew each time it runs, unless they train: of
a frozen network that is half of all kernels. Here they are converted once, when a layer first runs, and the products
take these; the results are the same bits. The layers keep their own float32 weights, which are what is hashed,
stored, merged and exported, and forget the others when the context ends: while it lasts, frozen layers that have run
take half as much memory again. Weights that change meanwhile are converted again, except inside compiled code. Those
of a compiled network stay for its next context, where they are filled anew, so that nothing is compiled or recorded
again. What a layer computes without autocast is computed from its own weights.
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
"""Of each compiled network: the same objects in all contexts, for which it need not be compiled again."""


class HeldForward:
    """In place of a frozen layer's `forward`: the same product, with weights that are in bfloat16 already.

    Args:
        layer: a linear layer or a convolution.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.ends = False
        self._held: tuple[Tensor, Tensor | None] | None = None
        self._of: list[tuple[int, int]] = []

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
        return low and not self.ends and not any(tensor.requires_grad for tensor in self._tensors())

    def held(self) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias in bfloat16."""
        if self._held is None or not (torch.compiler.is_compiling() or self._of == self._state()):
            with torch.inference_mode(False), torch.no_grad():
                weight, bias = self._own()
                self._held = weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16)
            self._of = self._state()
        return self._held

    def hold_still(self) -> None:
        """Hold the weights as they are now where they were held before, which a recorded CUDA graph reads."""
        was_held = self._held is not None
        for tensor, own in zip(self._held or self.held(), self._own(), strict=True):
            if tensor is None or own is None:
                continue
            if was_held:
                tensor.copy_(own)
            else:
                torch._dynamo.mark_static_address(tensor)
        self._of = self._state()

    def forget(self) -> None:
        """Let go of what is held."""
        self._held = None

    def _own(self) -> tuple[Tensor, Tensor | None]:
        layer = self.layer
        return (layer.effective_weight if _is_shifted(layer) else layer.weight), layer.bias

    def _tensors(self) -> list[Tensor]:
        """What the layer has of its own, which decides the weight and the bias of the product."""
        own = (*self.layer._parameters.values(), *self.layer._buffers.values())
        return [tensor for tensor in own if tensor is not None]

    def _state(self) -> list[tuple[int, int]]:
        """Where they lie and how often they were written; of an inference tensor nobody counts that."""
        return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._tensors()]

    def __reduce__(self) -> Any:
        """Whatever is loaded elsewhere computes from its own weights."""
        return _ended, (self.layer,)

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldForward:
        """A copy of a network goes ways of its own, and may change what is frozen here."""
        return _ended(copy.deepcopy(self.layer, memo))


def _ended(layer: Any) -> HeldForward:
    forward = HeldForward(layer)
    forward.ends = True
    return forward


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
    is_compiled = any(getattr(module, "_compiled_call_impl", None) for module in network.modules())
    known = _forwards.setdefault(network, {}) if is_compiled and layers else {}
    try:
        for layer in layers:
            layer.__dict__[_FORWARD] = forward = known.setdefault(layer, HeldForward(layer))
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
    forward, before = type(layer).forward, vars(layer).get(_FORWARD)
    known = forward is nn.Linear.forward or _is_shifted(layer)
    known = known or (isinstance(layer, _ConvNd) and forward in _CONVOLUTIONS)
    known = known and (before is None or (isinstance(before, HeldForward) and before.ends))
    plain = known and layer.weight.dtype is torch.float32 and not any(True for _ in layer.children())
    return plain and not any(p.requires_grad for p in layer.parameters())


_CONVOLUTIONS = tuple(kind.forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _is_shifted(layer: Any) -> bool:
    """Whether a linear layer's product takes another weight than its own."""
    return isinstance(layer, nn.Linear) and hasattr(layer, "effective_weight")
