"""Rotary positions of image patches: queries and keys turn by angles that follow from where their patch lies.

Sources: Su et al., "RoFormer", arXiv 2104.09864, for the rotation; Simeoni et al., "DINOv3", arXiv 2508.10104, for two
axes whose coordinates run from -1 to 1 over the image, whatever its size, so that positions are never interpolated.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.tracing import fixed_shape

PERIOD_BASE = 100.0
"""Ratio of the slowest to the fastest turn, of all released weights."""


class Rotary(nn.Module):
    """Turns the patch tokens of queries or keys (B, H, M, d) by their positions, in float32.

    A patch's centre lies at (y, x) in [-1, 1]. The d/4 angles of each axis are 2 pi y b^(-4i/d), with b of
    :data:`PERIOD_BASE` and i from 0; each turns a pair of channels that lie d/2 apart. Tokens before the patches stay.

    Args:
        grid: patches along the height and the width.
        n_prefix: tokens before the patches.
        head_dim: d, a multiple of 4.

    Raises:
        ConfigError: the width of a head is no multiple of 4.
    """

    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, *, grid: tuple[int, int], n_prefix: int, head_dim: int) -> None:
        super().__init__()
        if head_dim % 4:
            raise ConfigError(f"rotary positions need heads whose width is a multiple of 4, not {head_dim}")
        self.grid = grid
        self.n_prefix = n_prefix
        self.n_tokens = n_prefix + math.prod(grid)
        frequencies = 2 * math.pi * PERIOD_BASE ** (-torch.arange(0, 1, 4 / head_dim))
        centres = [(2 * torch.arange(0.5, count) / count - 1) for count in grid]
        places = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (places.unsqueeze(2) * frequencies).flatten(1).tile(2)
        angles = torch.cat([torch.zeros(n_prefix, head_dim), angles])
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, part: torch.Tensor) -> torch.Tensor:
        """Turn the queries or keys of the first M tokens."""
        count = fixed_shape(part)[2]
        low, high = part.chunk(2, dim=3)
        turned = torch.cat([-high, low], dim=3)
        turned = part * self.cosine[:count] + turned * self.sine[:count]
        # No conversion where there is nothing to convert: an exported program would check types by it.
        return turned if turned.dtype == part.dtype else turned.to(part.dtype)

    def check(self, tokens: torch.Tensor) -> None:
        """Refuse tokens (B, N, D) that are not those of a whole image.

        Raises:
            ConfigError: they are more or fewer.
        """
        if (count := fixed_shape(tokens)[1]) != self.n_tokens:
            height, width = self.grid
            raise ConfigError(
                f"{count} tokens came, and rotary positions are of {self.n_prefix} tokens and all {height} x {width} "
                "patches of an image; a masked auto-encoder, which leaves patches out, or a method that adds tokens "
                "needs a network with learned positions"
            )
