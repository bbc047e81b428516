"""One frozen backbone for all sites of a process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FrozenTensors:
    """Tensors that no training changes, held once for all networks that have them.

    Each network is built with its own tensors. A tensor that equals the one held under the same name is replaced by
    the held one, and its memory is freed.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def share(self, network: nn.Module, keys: Iterable[str]) -> None:
        """Let ``network`` use the held tensors of these state-dict keys, and hold those that are new.

        Args:
            network: on any device.
            keys: of tensors that are only read from now on.
        """
        places = tensors_by_key(network)
        for key in filter(places.__contains__, keys):
            own = places[key].data
            held = self._held.setdefault(key, own)
            if held.device == own.device and held.dtype == own.dtype and torch.equal(held, own):
                places[key].data = held


def tensors_by_key(network: nn.Module) -> dict[str, Tensor]:
    """A network's own parameters and buffers by state-dict key; a tied weight has several."""
    parameters, buffers = (f(remove_duplicate=False) for f in (network.named_parameters, network.named_buffers))
    return {**dict(parameters), **dict(buffers)}


def return_freed_memory() -> None:
    """Give freed memory back to the system.

    glibc keeps freed memory that lies before memory in use; with other C libraries this does nothing.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
