"""The part of a network that no training changes, as a function of one image."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.adapters.side import PREFIX
from monai_fedlora.catalogues import code_of
from monai_fedlora.engines.memory import fingerprint, is_known
from monai_fedlora.engines.store import hash_tensors
from monai_fedlora.networks.backbone import Backbone, Features, Taps, is_backbone
from monai_fedlora.networks.frozen_weights import HeldForward


class FrozenPart(ABC):
    """A network's frozen part, and how to go on from what it gives.

    Args:
        network: a network that can be cut; what it computes here must not train.
    """

    def __init__(self, network: Any) -> None:
        self.network = network

    @abstractmethod
    def blocks_behind(self) -> Sequence[int]:
        """Indices of the blocks after the frozen part."""

    @abstractmethod
    def compute(self, images: Tensor) -> tuple[Tensor, ...]:
        """Output of the frozen part for images (B, ...): tensors whose first axis is the batch."""

    @abstractmethod
    def logits(self, parts: Sequence[Tensor], network: nn.Module) -> Tensor:
        """Logits (B, C) from what :meth:`compute` gave.

        Args:
            parts: of a batch.
            network: the network itself, or what wraps it for several processes.
        """

    @property
    def prefixes_behind(self) -> tuple[str, ...]:
        """Prefixes of the state-dict keys that do not belong to the frozen part."""
        blocks = (f"{self.network.block_name(number)}." for number in self.blocks_behind())
        return (*blocks, *self.network.head_prefixes, PREFIX)

    @property
    def digest(self) -> str | None:
        """Hash of everything but the code that determines the output of :meth:`compute`.

        That is the weights and tables that an image passes, the class and the settings of every module that holds them
        (heads of the attention, activations, epsilons, ...) and of the network itself, what the readout takes of the
        last block, and what is taken from the network. The trained part is not hashed, so that methods share it.

        Returns:
            Hexadecimal digits; None where a setting or a class cannot be described, see
            :func:`~monai_fedlora.engines.memory.fingerprint`, and another network could have the same.
        """
        network, behind = self.network, self.prefixes_behind
        kind = f"{_class(self)} {list(self.blocks_behind())} {network.reads_class_token_alone}"
        digest = hashlib.sha256(kind.encode())
        for name, module in network.named_modules():
            if not f"{name}.".startswith(behind):
                described = fingerprint(_settings(module))
                if described is None or not is_known(type(module).__module__):
                    return None
                digest.update(f"{name} {_class(module)} {described}".encode())
        state = network.state_dict()
        hash_tensors(digest, {name: tensor for name, tensor in state.items() if not name.startswith(behind)})
        return digest.hexdigest()


_OF_ANY_MODULE = (*vars(nn.Module()), "_compiled_call_impl", "peft_config")
"""Attributes that are no settings: parameters, hooks, the mode, a compiled form, and PEFT's notes about adapters."""


def _settings(module: nn.Module) -> dict[str, Any]:
    """A module's attributes that are neither tensors nor modules."""
    found = sorted(vars(module).items())
    return {name: value for name, value in found if name not in _OF_ANY_MODULE and not isinstance(value, HeldForward)}


def _class(value: object) -> str:
    module = type(value).__module__
    return f"{module}.{type(value).__qualname__} {code_of(module)}".rstrip()


class FrozenPrefix(FrozenPart):
    """The embedding and the blocks before the first one that trains.

    Args:
        network: see :class:`FrozenPart`.
        block: the first block that does not belong to it.
    """

    def __init__(self, network: Any, block: int) -> None:
        super().__init__(network)
        self.block = block

    def blocks_behind(self) -> Sequence[int]:
        """From the cut on."""
        return range(self.block, len(self.network.blocks))

    def compute(self, images: Tensor) -> tuple[Tensor, ...]:
        """The tokens before the cut, and the readout's addend."""
        with torch.no_grad():
            return tuple(self.network.prefix(images, self.block))

    def logits(self, parts: Sequence[Tensor], network: nn.Module) -> Tensor:
        """Run the blocks from the cut on."""
        tokens, addend = parts
        logits: Tensor = network(Features(tokens, addend), self.block)
        return logits


class FrozenTaps(FrozenPart):
    """The inputs of all blocks, which a network beside them reads; the last block runs behind it."""

    def blocks_behind(self) -> Sequence[int]:
        """The last one."""
        return (len(self.network.blocks) - 1,)

    def compute(self, images: Tensor) -> tuple[Tensor, ...]:
        """The input of every block, and the readout's addend."""
        hidden, addend = self.network.taps(images)
        return (*hidden, addend)

    def logits(self, parts: Sequence[Tensor], network: nn.Module) -> Tensor:
        """Run the network beside the blocks, and the last block."""
        *hidden, addend = parts
        logits: Tensor = network(Taps(tuple(hidden), addend))
        return logits


def frozen_part(network: nn.Module) -> FrozenPart | None:
    """The largest part of a network, from the image on, that does not train; None where there is none."""
    cut: Any = network
    if not is_backbone(cut):
        return None
    part = FrozenTaps(cut) if cut.side is not None else FrozenPrefix(cut, _first_trained(cut))
    behind = part.prefixes_behind
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return part if all(name.startswith(behind) for name in trained) else None


def _first_trained(network: Backbone) -> int:
    """Index of the first block with a trainable parameter; the depth where only the readout trains."""
    trains = [any(p.requires_grad for p in block.parameters()) for block in network.blocks]
    return trains.index(True) if True in trains else len(trains)
