"""``torch.compile`` for networks in training: one graph for all sizes of batches, and nothing lost to CUDA graphs."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.data.site import cache_folder
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import make_folder
from monai_fedlora.networks.blocked import BlockedNetwork

COMPILERS = ("off", "default", "reduce-overhead", "max-autotune")
"""Modes of ``torch.compile``, and none."""
_REPLAYING = ("reduce-overhead", "max-autotune")
"""Modes that record CUDA graphs, whose outputs the next replay overwrites."""
_MOST_GRAPHS = 256
"""Of one function in a process; PyTorch computes without its compiler from the ninth on unless told otherwise."""
_BUILT_CODE = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch's variable for the folder from which it loads what it has compiled, in other processes too."""
_log = logging.getLogger(__name__)


def compiled(network: nn.Module, *, device: torch.device, mode: str) -> nn.Module:
    """Let calls of a network run compiled, in place.

    The first axis of what the network is called with may have any length: one graph serves batches of two cases or
    more, another one batches of a single case. Beside these a graph is compiled for each kind of input (images, or what
    is kept of frozen blocks), for training and evaluation, and for each weighting of the adapters, such as that of the
    personal and the shared model. Compiling takes up to minutes, so that it pays for long trainings on GPUs alone, and
    changes the last bits of results.

    Args:
        network: on its device; wrapped for several processes only after this.
        device: where to compute.
        mode: one of :data:`COMPILERS`; without a GPU, ``reduce-overhead`` does what ``default`` does.

    Raises:
        ConfigError: there is no such mode, the machine lacks what compiled code is built with, or the network is one
            of one's own whose blocks are named.
    """
    if mode not in COMPILERS:
        raise ConfigError(f"compiler is {mode!r}; choose from {', '.join(COMPILERS)}")
    if mode == "off":
        return network
    if isinstance(network, BlockedNetwork):
        raise ConfigError(
            f"compiler is {mode!r}, and a network of one's own is cut between its blocks in a way that torch.compile "
            "cannot follow; leave blocks=... out, so that all of it is compiled and none of it kept, or set compiler "
            "to off"
        )
    _refuse_without_tools(device, mode)
    if _BUILT_CODE not in os.environ:  # PyTorch's own choice lies where every user of the machine may write
        folder = cache_folder() / "compiled"
        make_folder(folder)
        os.environ[_BUILT_CODE] = str(folder)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    replays = mode in _REPLAYING
    if replays and device.type != "cuda":
        _log.info("compiler is %s, whose CUDA graphs need a GPU; without them it compiles for a %s", mode, device.type)
    network._compiled_call_impl = _Compiled(torch.compile(network._call_impl, mode=mode), replays=replays)
    return network


def keep_gradients(network: nn.Module) -> None:
    """Move gradients out of the memory of CUDA graphs, so that those of more batches can be added to them.

    PyTorch takes the gradient that a recorded backward pass gives as the parameter's own, without a copy, and the next
    replay writes something else there. A network without CUDA graphs is left alone.

    Args:
        network: after a backward pass and before the next forward one.
    """
    if getattr(network._compiled_call_impl, "replays", False):
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()


class _Compiled:
    """A compiled call that is told which axis varies; what it returns outlives the next call.

    Args:
        call: the compiled function.
        replays: whether it records CUDA graphs.
    """

    def __init__(self, call: Any, *, replays: bool) -> None:
        self.call = call
        self.replays = replays

    def __call__(self, inputs: Any, *args: Any) -> Tensor:
        for tensor in _tensors(inputs):
            if tensor.shape[0] > 1:  # of an axis of length one PyTorch compiles a graph of its own
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        if not self.replays:
            logits: Tensor = self.call(inputs, *args)
            return logits
        torch.compiler.cudagraph_mark_step_begin()
        logits = self.call(inputs, *args)
        return logits.clone()


def _tensors(inputs: Any) -> list[Tensor]:
    """The tensors of images, or of what is kept of frozen blocks."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return [tensor for part in inputs for tensor in _tensors(part)] if isinstance(inputs, (tuple, list)) else []


def _refuse_without_tools(device: torch.device, mode: str) -> None:
    """Say before anything is prepared that PyTorch would find no compiler for what it generates.

    Raises:
        ConfigError: neither the variable that names one does, nor is one of the usual ones there.
    """
    variable, usual = ("CC", ("gcc", "clang", "cc")) if device.type == "cuda" else ("CXX", ("g++", "clang++", "c++"))
    named = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((named,) if named else usual)):
        raise ConfigError(
            f"compiler is {mode!r}, for which PyTorch needs a C compiler, and {named or ' or '.join(usual)} is not on "
            f"this machine; install one, name it in {variable}, or set compiler to off"
        )
