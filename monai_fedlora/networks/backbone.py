"""What every backbone offers, whatever its family.

A backbone is a stack of blocks between an embedding and a readout. Anything that trains only from block
``i`` onwards can compute :meth:`Backbone.prefix` once, keep it, and call :meth:`Backbone.suffix` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch
from torch import nn


class Features(NamedTuple):
    """The state of a forward pass between two blocks.

    Attributes:
        tokens: (B, P + N, D), the class token first, if there is one, then registers; the input of the next block.
        addend: (B, ...), what the readout reads besides the tokens; it depends on the image and on frozen layers alone.
            A classifier's is (B, N, D), which is added to the N patch tokens; a segmentation network's holds the image
            and what its decoder reads of earlier layers. A backbone without such a path gives a (B, 0, D) tensor.
    """

    tokens: torch.Tensor
    addend: torch.Tensor


class Taps(NamedTuple):
    """What a network beside the blocks reads.

    Attributes:
        hidden: the inputs of all blocks in their order, each (B, P + N, D), in the order of :class:`Features`.
        addend: as in :class:`Features`.
    """

    hidden: tuple[torch.Tensor, ...]
    addend: torch.Tensor


class Backbone(Protocol):
    """A frozen foundation model that can be cut before any of its blocks.

    Attributes:
        head_prefixes: the state-dict prefixes of the heads: of a segmentation network, its decoder.
        target_names: the path inside a block of the linear layer that plays a role: ``q``, ``k``, ``v`` and ``proj``
            of the attention, ``fc1`` and ``fc2`` of the MLP. Roles that one fused layer plays share its path.
        side: a module that computes the logits from this network and its :class:`Taps`; None for the network alone.
    """

    head_prefixes: tuple[str, ...]
    side: nn.Module | None
    target_names: Mapping[str, str]

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, in the order they run.

        Each is called as ``block(tokens, queries)`` and maps (B, P + N, D) to the same shape; with a number of queries,
        to the output of that many first tokens alone.
        """
        ...

    @property
    def reads_class_token_alone(self) -> bool:
        """Whether the readout ignores all tokens but the class token."""
        ...

    def block_name(self, block: int) -> str:
        """The dotted module path of a block inside the network."""
        ...

    def embed(self, x: torch.Tensor) -> Features:
        """Turn images into the input of block 0."""
        ...

    def readout(self, features: Features) -> torch.Tensor:
        """Turn the output of the last block into logits (B, C), or (B, F, 1 + K, ...) of F frames and K structures."""
        ...

    def prefix(self, x: torch.Tensor, block: int) -> Features:
        """Embed images and run the blocks before ``block``, which lies in 0..depth."""
        ...

    def suffix(self, features: Features, block: int) -> torch.Tensor:
        """Run the blocks from ``block`` on and read out; ``suffix(prefix(x, i), i)`` equals the network."""
        ...

    def taps(self, x: torch.Tensor) -> Taps:
        """The inputs of all blocks, without an autograd graph."""
        ...

    def __call__(self, x: torch.Tensor | Features | Taps, block: int = 0) -> torch.Tensor:
        """Logits (B, C) of images, or of what :meth:`prefix` (of the same ``block``) or :meth:`taps` made of them."""
        ...


_PARTS = (
    *("head_prefixes", "side", "target_names", "blocks", "reads_class_token_alone"),
    *("block_name", "embed", "readout", "prefix", "suffix", "taps"),
)


def is_backbone(network: Any) -> TypeGuard[Backbone]:
    """Whether a network has all parts of a :class:`Backbone`, modules that it holds included."""
    return all(hasattr(network, part) for part in _PARTS)
