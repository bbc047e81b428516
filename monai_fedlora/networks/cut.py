"""Running a backbone whole, in two parts, or beside a network that reads all of its blocks; for every family alike."""

from __future__ import annotations

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.protocol import Backbone, Features, Taps


class CutNetwork(nn.Module):
    """A module with ``embed``, ``blocks`` and ``readout`` that can be cut before any of its blocks.

    Attributes:
        side: a module that computes the logits from this network and its :class:`Taps`, called as
            ``side(network, taps)``; None (the default) for the network alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.side: nn.Module | None = None

    def prefix(self: Backbone, x: torch.Tensor, block: int) -> Features:
        """Embed images and run the blocks before ``block``.

        After the last block a network that reads the class token alone has no other token.

        Raises:
            ConfigError: ``block`` lies outside 0..depth.
        """
        tokens, addend = self.embed(x)
        return Features(_run(self, tokens, range(_checked_block(self, block))), addend)

    def suffix(self: Backbone, features: Features, block: int) -> torch.Tensor:
        """Run the blocks from ``block`` on and read out the logits (B, out_chans).

        Raises:
            ConfigError: ``block`` lies outside 0..depth.
        """
        tokens = _run(self, features.tokens, range(_checked_block(self, block), len(self.blocks)))
        return self.readout(Features(tokens, features.addend))

    @torch.no_grad()
    def taps(self: Backbone, x: torch.Tensor) -> Taps:
        """The inputs of all blocks, without an autograd graph; the last block does not run."""
        tokens, addend = self.embed(x)
        hidden = [tokens]
        for block in self.blocks[:-1]:
            hidden.append(block(hidden[-1]))
        return Taps(tuple(hidden), addend)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify images: logits (B, out_chans)."""
        if self.side is not None:
            return self.side(self, self.taps(x))  # type: ignore[misc]
        return self.suffix(self.embed(x), 0)  # type: ignore[misc, operator]


def _run(network: Backbone, tokens: torch.Tensor, numbers: range) -> torch.Tensor:
    """Run blocks; of what nobody reads, the last one computes keys and values alone."""
    for number in numbers:
        alone = network.reads_class_token_alone and number == len(network.blocks) - 1
        tokens = network.blocks[number](tokens, 1 if alone else None)
    return tokens


def _checked_block(network: Backbone, block: int) -> int:
    if not 0 <= block <= len(network.blocks):
        raise ConfigError(f"block {block} lies outside 0..{len(network.blocks)}, the depth of this network")
    return block
