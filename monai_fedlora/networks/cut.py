"""Running a backbone whole, in two parts, or beside a network that reads all of its blocks; for every family alike."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import Backbone, Features, Taps


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
        return Features(_run(self, tokens, range(checked_block(self, block))), addend)

    def suffix(self: Backbone, features: Features, block: int) -> torch.Tensor:
        """Run the blocks from ``block`` on and read out the logits (B, out_chans).

        Raises:
            ConfigError: ``block`` lies outside 0..depth.
        """
        tokens = _run(self, features.tokens, range(checked_block(self, block), len(self.blocks)))
        return self.readout(Features(tokens, features.addend))

    @torch.no_grad()
    def taps(self: Backbone, x: torch.Tensor) -> Taps:
        """The inputs of all blocks, without an autograd graph; the last block does not run."""
        tokens, addend = self.embed(x)
        hidden = [tokens]
        for block in self.blocks[:-1]:
            hidden.append(block(hidden[-1]))
        return Taps(tuple(hidden), addend)

    def forward(self, x: torch.Tensor | Features | Taps, block: int = 0) -> torch.Tensor:
        """Classify images: logits (B, out_chans).

        Args:
            x: images, or what :meth:`taps` or :meth:`prefix` made of them.
            block: of the prefix.
        """
        network = cast(Backbone, self)
        if isinstance(x, Features):
            return network.suffix(x, block)
        if network.side is not None:
            return network.side(network, x if isinstance(x, Taps) else network.taps(x))
        if isinstance(x, Taps):
            raise ConfigError("the inputs of all blocks are of use to a network with a side network alone")
        return network.suffix(network.embed(x), 0)


def _run(network: Backbone, tokens: torch.Tensor, numbers: range) -> torch.Tensor:
    """Run blocks; the last one computes queries only for the tokens that the readout reads."""
    for number in numbers:
        alone = network.reads_class_token_alone and number == len(network.blocks) - 1
        tokens = network.blocks[number](tokens, 1 if alone else None)
    return tokens


def checked_block(network: Backbone, block: int) -> int:
    """The block, which lies in 0..depth.

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= block <= len(network.blocks):
        raise ConfigError(f"block {block} lies outside 0..{len(network.blocks)}, the depth of this network")
    return block
