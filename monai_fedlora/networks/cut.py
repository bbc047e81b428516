"""Running a backbone whole or in two parts, for every family alike."""

from __future__ import annotations

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.protocol import Backbone, Features


class CutNetwork(nn.Module):
    """A module with ``embed``, ``blocks`` and ``readout`` that can be cut before any of its blocks."""

    def prefix(self: Backbone, x: torch.Tensor, block: int) -> Features:
        """Embed images and run the blocks before ``block``.

        Raises:
            ConfigError: ``block`` lies outside 0..depth.
        """
        tokens, addend = self.embed(x)
        for layer in self.blocks[: _checked_block(self, block)]:
            tokens = layer(tokens)
        return Features(tokens, addend)

    def suffix(self: Backbone, features: Features, block: int) -> torch.Tensor:
        """Run the blocks from ``block`` on and read out the logits (B, out_chans).

        Raises:
            ConfigError: ``block`` lies outside 0..depth.
        """
        tokens = features.tokens
        for layer in self.blocks[_checked_block(self, block) :]:
            tokens = layer(tokens)
        return self.readout(Features(tokens, features.addend))

    def forward(self: Backbone, x: torch.Tensor) -> torch.Tensor:
        """Classify images: logits (B, out_chans)."""
        return self.suffix(self.embed(x), 0)


def _checked_block(network: Backbone, block: int) -> int:
    if not 0 <= block <= len(network.blocks):
        raise ConfigError(f"block {block} lies outside 0..{len(network.blocks)}, the depth of this network")
    return block
