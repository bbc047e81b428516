"""The convolutional decoder of CineMA's segmentation network.

Source: Fu et al., arXiv 2506.00679; the residual block is that of Rombach et al., arXiv 2112.10752, with GELU and
channel norms. Parameter names are those of the released weights. Feature maps are (B, C, X, Y, Z).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.conv_stem import ChannelNorm, PointwiseConv, Size3

_EPS = 1e-6
_N_BLOCKS = 2  # residual blocks of a stage, as released


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """The shape of a decoder; the defaults are those of the released weights.

    Attributes:
        chans: channels of each stage, the finest first.
        patch_size: stride of the finest stage along x, y, z.
        scale_factor: stride of every other stage.
        kernel_size: of all convolutions in residual blocks; odd.
    """

    chans: tuple[int, ...] = (32, 64, 128, 256, 512)
    patch_size: Size3 = (2, 2, 1)
    scale_factor: Size3 = (2, 2, 1)
    kernel_size: Size3 = (3, 3, 3)

    def __post_init__(self) -> None:
        if not self.chans or min(*self.chans, *self.patch_size, *self.scale_factor) < 1:
            raise ConfigError(f"a decoder's channels and strides must be positive, not {self}")
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ConfigError(f"a decoder's kernel must be odd along every axis, not {self.kernel_size}")

    def levels(self, patch_sizes: Sequence[Size3]) -> tuple[int, int]:
        """Where the maps of a stem enter.

        Args:
            patch_sizes: strides of the stem's stages, that of the tokens last.

        Returns:
            The number of finest stages, after the image's own, that no map enters, and the number of times that the
            tokens are brought down further.

        Raises:
            ConfigError: a stage of the stem has the resolution of none of the decoder's.
        """
        strides = [(1, 1, 1)]
        for size in (self.patch_size, *[self.scale_factor] * (len(self.chans) - 1)):
            strides.append(_times(strides[-1], size))
        wanted = [patch_sizes[0]]
        for size in patch_sizes[1:]:
            wanted.append(_times(wanted[-1], size))
        for found in wanted:
            if found not in strides[1:]:
                raise ConfigError(
                    f"the stem has maps at 1/{found} of the image, and this decoder at {strides[1:]}; "
                    "give it more stages (chans) or other strides"
                )
        first = strides.index(wanted[0])
        if strides[first : first + len(wanted)] != wanted:
            raise ConfigError(f"the decoder's strides {strides[1:]} skip or repeat one of the stem's {wanted}")
        return first - 1, len(strides) - first - len(wanted)


RELEASED_DECODER = DecoderSettings()
"""That of the released weights."""


def _times(first: Size3, second: Size3) -> Size3:
    x, y, z = (a * b for a, b in zip(first, second, strict=True))
    return x, y, z


class ResBlock(nn.Module):
    """Two convolutions, each after a channel norm and a GELU, beside a shortcut; (B, C, ...) to (B, C', ...)."""

    def __init__(self, in_chans: int, out_chans: int, kernel_size: Size3) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(in_chans, eps=_EPS)
        self.norm2 = ChannelNorm(out_chans, eps=_EPS)
        x, y, z = kernel_size
        padding = x // 2, y // 2, z // 2
        self.conv1 = nn.Conv3d(in_chans, out_chans, kernel_size=kernel_size, padding=padding)
        self.conv2 = nn.Conv3d(out_chans, out_chans, kernel_size=kernel_size, padding=padding)
        self.shortcut = PointwiseConv(in_chans, out_chans) if in_chans != out_chans else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv1(functional.gelu(self.norm1(x)))
        hidden = self.conv2(functional.gelu(self.norm2(hidden)))
        return hidden + self.shortcut(x)


class UpStage(nn.Module):
    """A transposed convolution without overlap, and residual blocks at the new resolution."""

    def __init__(self, in_chans: int, out_chans: int, stride: Size3, kernel_size: Size3) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_chans, out_chans, kernel_size=stride, stride=stride)
        self.conv = nn.ModuleList(ResBlock(out_chans, out_chans, kernel_size) for _ in range(_N_BLOCKS))

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        x = self.up(x)
        if skip is not None:
            x = x + skip
        for block in self.conv:
            x = block(x)
        return x


class UpDecoder(nn.Module):
    """From the coarsest map to the resolution of the image, adding a map of that resolution at each stage."""

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        chans = settings.chans
        self.blocks = nn.ModuleList(
            UpStage(
                chans[level],
                chans[max(level - 1, 0)],
                settings.scale_factor if level else settings.patch_size,
                settings.kernel_size,
            )
            for level in reversed(range(len(chans)))
        )

    def forward(self, maps: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Decode maps, the finest first: that of the image, and one or none for each stage's input; (B, C, X, Y, Z)."""
        *skips, x = maps
        assert x is not None
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(x, skip)
        return x
