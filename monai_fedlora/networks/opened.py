"""Any ``torch.nn.Module`` as a network that methods attach to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.layers import block_lists, module_called

INSIDE = "module."
"""What the state-dict keys and dotted names of the user's own module begin with."""


class OpenedNetwork(nn.Module):
    """A network of one's own, with what methods and engines ask of one.

    Calling it gives the module's logits, see :func:`logits_of`. It cannot be cut between its blocks, so that a frozen
    part of it is computed anew in every step; :class:`monai_fedlora.networks.blocked.BlockedNetwork` can.

    Args:
        module: the network, which maps a batch of images to logits. It is not copied.
        head: dotted names of the modules that are its classification head; none where nothing of it is one.

    Attributes:
        module: as given.
        head_prefixes: what state-dict keys of the head begin with, such as ``"module.classifier."``; none without one.
        side: always None: nothing computes the logits in the module's place.

    Raises:
        ConfigError: the head is not there (the nearest names are given) or has no parameters.
    """

    def __init__(self, module: nn.Module, *, head: Sequence[str] = ()) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"the network is a {type(module).__name__}; give a torch.nn.Module")
        for name in head:
            if not any(True for _ in module_called(module, name, what="head").parameters()):
                raise ConfigError(f"head is {name!r}, which has no parameters; name the layer that makes the logits")
        self.module = module
        self.head_prefixes = tuple(f"{INSIDE}{name}." for name in head)
        _refuse_shared_heads(module, head)
        self.side: nn.Module | None = None

    def forward(self, x: Any) -> Tensor:
        """Logits of images (B, ...)."""
        return logits_of(self.module(x), batch=x.shape[0])

    @property
    def block_lists(self) -> list[str]:
        """Dotted names, in the user's module, of what could be its list of blocks."""
        return block_lists(self.module)


def _refuse_shared_heads(module: nn.Module, head: Sequence[str]) -> None:
    """Refuse a head with a parameter that lies outside of it, too, where it does not train."""
    prefixes = tuple(f"{name}." for name in head)
    parameters = list(module.named_parameters(remove_duplicate=False))
    heads = {id(parameter): name for name, parameter in parameters if name.startswith(prefixes)}
    for name, parameter in parameters:
        if id(parameter) in heads and not name.startswith(prefixes):
            raise ConfigError(f"the head's {heads[id(parameter)]} is one parameter with {name}, outside of the head")


def logits_of(output: Any, *, batch: int) -> Tensor:
    """The logits in what a network returns.

    A tensor is the logits. Of a tuple or a list, as MONAI's ViT returns, they are the first element; of an object or a
    mapping with ``logits``, as transformers' models return, that.

    Args:
        output: of the network.
        batch: how many images it was given.

    Returns:
        A floating-point tensor (B, C, ...).

    Raises:
        ConfigError: the output holds no such tensor.
    """
    logits = output
    if isinstance(output, Mapping):
        logits = output.get("logits")
    elif isinstance(output, (list, tuple)) and not hasattr(output, "logits"):
        logits = output[0] if output else None
    elif not isinstance(output, Tensor):
        logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim > 1 and logits.shape[0] == batch:
        return logits
    raise ConfigError(
        f"the network's output is no logits, but {_described(output)}; it must return a floating-point tensor of shape "
        f"({batch}, classes), a tuple that begins with one, or an object with .logits"
    )


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a {str(output.dtype).removeprefix('torch.')} tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {', '.join(map(str, output)) or 'nothing'}"
    if isinstance(output, (list, tuple)):
        return f"a {type(output).__name__} that begins with {_described(output[0])}" if output else "an empty tuple"
    return f"a {type(output).__name__}"


def random_images(like: Tensor, count: int) -> Tensor:
    """``count`` images of random values in the shape, type and place of those given, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *like.shape[1:], generator=generator).to(like)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode inside the block, and restore the mode of every module afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
