"""Weights that many networks of one process start from, read from their file once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from monai_fedlora.networks.catalogue import Network
from monai_fedlora.networks.checkpoint_files import BackboneInfo
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone


@dataclass(frozen=True, slots=True)
class _Read:
    """What was loaded, and the tensors of the network that have it."""

    info: BackboneInfo
    tensors: Mapping[str, Tensor]

    @property
    def unchanged(self) -> bool:
        """Whether nothing of it trains in the network that has it."""
        return not any(tensor.requires_grad for tensor in self.tensors.values())


_active: ContextVar[dict[Hashable, _Read] | None] = ContextVar("read_once", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Let :func:`read_backbone` take weights from an earlier network of this context instead of from their file.

    The earlier network lends its own tensors, so that nothing but a head is held twice. One whose backbone trains lends
    nothing, and the file is read again.
    """
    token = _active.set({})
    try:
        yield
    finally:
        _active.reset(token)


def read_backbone(network: Network, source: str | Path, *, sha256: str | None, kind: Hashable) -> BackboneInfo:
    """Load weights as :func:`~monai_fedlora.networks.weights.load_backbone` does, or copy them where they are known.

    Args:
        network: where the weights go, without adapters.
        source, sha256: see :func:`~monai_fedlora.networks.weights.load_backbone`.
        kind: equal for networks of the same shape.

    Raises:
        WeightsError, ConfigError: as when they are loaded.
    """
    read = _active.get()
    if read is None:
        return load_backbone(network, source, sha256=sha256)
    key = (kind, str(source), sha256)
    if key not in read or not read[key].unchanged:
        info = load_backbone(network, source, sha256=sha256)
        lent = _loaded(network, info)
        heads = {
            name: tensor.detach().clone() for name, tensor in lent.items() if name.startswith(network.head_prefixes)
        }
        read[key] = _Read(info, lent | heads)
        return info
    with torch.no_grad():
        for name, tensor in _loaded(network, read[key].info).items():
            tensor.copy_(read[key].tensors[name])
    info = read[key].info
    if isinstance(network, VisionTransformer) and info.resizing is not None:
        network.embed.resizing = info.resizing
    return info


def _loaded(network: Network, info: BackboneInfo) -> dict[str, Tensor]:
    """A network's parameters and tables, without the heads that a file did not have."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(info.own_heads)}
