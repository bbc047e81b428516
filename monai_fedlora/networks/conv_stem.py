"""The convolutional stem and the multi-scale fusion around CineMA's transformer.

Source: Fu et al., arXiv 2506.00679, after ConvMAE (Gao et al., arXiv 2205.03892). Parameter names are those
of the released weights. Feature maps are (B, C, X, Y, Z), kept in channels-last memory, where the channel
norms and the 1x1x1 convolutions need no copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.networks.position import resize_position, sincos_position

Size3 = tuple[int, int, int]

_EPS = 1e-6


def patchify(image: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:
    """Cut (B, C, X, Y, Z) into (B, N, p*q*r*C): patches in x, y, z order, the channel fastest in each."""
    batch, channels, x, y, z = image.shape
    p, q, r = patch_size
    split = image.reshape(batch, channels, x // p, p, y // q, q, z // r, r)
    return split.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a (B, C, X, Y, Z) map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = x.permute(0, 2, 3, 4, 1)
        last = functional.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return last.permute(0, 4, 1, 2, 3)


class PointwiseConv(nn.Conv3d):
    """A 1x1x1 convolution computed as a matrix product, which is faster on a CPU."""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__(in_chans, out_chans, kernel_size=1)

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        last = functional.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias)
        return last.permute(0, 4, 1, 2, 3)


class DepthwiseConv(nn.Conv3d):
    """A 5x5x5 convolution of each channel by itself.

    While its weight trains on a CPU it computes in the weight's own type, also under autocast: in bfloat16 the gradient
    of the weight of a grouped convolution of small channels-last maps there holds memory that nobody wrote (oneDNN, as
    in PyTorch 2.13), which now and then is NaN.
    """

    def __init__(self, chans: int) -> None:
        super().__init__(chans, chans, kernel_size=5, padding=2, groups=chans)

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if weight.requires_grad and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return functional.conv3d(x.to(weight.dtype), weight, bias, padding=self.padding, groups=self.groups)
        return functional.conv3d(x, weight, bias, padding=self.padding, groups=self.groups)


class ConvMlp(nn.Module):
    """Two 1x1x1 convolutions with a GELU between them."""

    def __init__(self, chans: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = PointwiseConv(chans, hidden)
        self.fc2 = PointwiseConv(hidden, chans)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class ConvBlock(nn.Module):
    """A residual depthwise 5x5x5 convolution and a residual MLP, both after a channel norm."""

    def __init__(self, chans: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(chans, eps=_EPS)
        self.conv1 = PointwiseConv(chans, chans)
        self.dw_conv = DepthwiseConv(chans)
        self.conv2 = PointwiseConv(chans, chans)
        self.norm2 = ChannelNorm(chans, eps=_EPS)
        self.mlp = ConvMlp(chans, chans * mlp_ratio)

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, C, X, Y, Z) to the same shape.

        Args:
            x: the feature map.
            visible: (B, 1, X, Y, Z), 1 where a voxel may be seen by its neighbours and 0 where it is
                masked; None for all ones.
        """
        hidden = self.conv1(self.norm1(x))
        if visible is not None:
            hidden = hidden * visible
        x = x + self.conv2(self.dw_conv(hidden))
        return x + self.mlp(self.norm2(x))


class ConvPatch(nn.Module):
    """A strided convolution without overlap, a channel norm and a GELU."""

    def __init__(self, in_chans: int, out_chans: int, patch_size: Size3) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_chans, out_chans, kernel_size=patch_size, stride=patch_size)
        self.norm = ChannelNorm(out_chans, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.gelu(self.norm(self.conv(x)))


class ConvStage(nn.Module):
    """A downsampling and the blocks at the new resolution."""

    def __init__(self, *, in_chans: int, out_chans: int, patch_size: Size3, n_blocks: int, mlp_ratio: int) -> None:
        super().__init__()
        self.patch_embed = ConvPatch(in_chans, out_chans, patch_size)
        self.conv = nn.ModuleList(ConvBlock(out_chans, mlp_ratio) for _ in range(n_blocks))

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        x = self.patch_embed(x)
        if visible is not None:
            visible = _spread(visible, x)
        for block in self.conv:
            x = block(x, visible)
        return x


def _spread(visible: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Repeat a (B, gx, gy, gz) mask of tokens to (B, 1, X, Y, Z), the size of the feature map ``like``."""
    for dim in (1, 2, 3):
        visible = visible.repeat_interleave(like.shape[dim + 1] // visible.shape[dim], dim=dim)
    return visible.unsqueeze(1).to(like.dtype)


class PatchEmbed(nn.Module):
    """Patches flattened and projected to the transformer's width."""

    def __init__(self, in_chans: int, dim: int, patch_size: Size3) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(in_chans * math.prod(patch_size), dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(patchify(x, self.patch_size))


class ConvStem(nn.Module):
    """From an image to tokens with their positions, keeping every stage's map.

    ``pos_embed`` is computed at construction and saved with the weights, but never trained; images of
    another size get it interpolated.
    """

    pos_embed: torch.Tensor

    def __init__(
        self,
        *,
        in_chans: int,
        grid: Size3,
        patch_sizes: Sequence[Size3],
        conv_chans: Sequence[int],
        conv_n_blocks: int,
        dim: int,
        mlp_ratio: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.conv_blocks = nn.ModuleList(
            ConvStage(in_chans=before, out_chans=after, patch_size=size, n_blocks=conv_n_blocks, mlp_ratio=mlp_ratio)
            for before, after, size in zip([in_chans, *conv_chans[:-1]], conv_chans, patch_sizes[:-1], strict=True)
        )
        self.patch_embed = PatchEmbed(conv_chans[-1], dim, patch_sizes[-1])
        self.linear = nn.Linear(dim, dim)
        self.register_buffer("pos_embed", sincos_position(dim, grid).unsqueeze(0))

    def forward(
        self, image: torch.Tensor, grid: Size3, visible: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Embed images.

        Args:
            image: (B, n_frames, X, Y, Z).
            grid: the number of tokens along x, y and z.
            visible: (B, gx, gy, gz), 0 where a token is masked, so that no convolution carries its
                content to its neighbours; None to see everything.

        Returns:
            The tokens (B, gx*gy*gz, dim), and each stage's map (B, C, X', Y', Z').
        """
        x = image.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for stage in self.conv_blocks:
            x = stage(x, visible)
            skips.append(x)
        position = self.pos_embed if grid == self.grid else resize_position(self.pos_embed, self.grid, grid)
        return self.linear(self.patch_embed(x)) + position, skips


class Fusion(nn.Module):
    """Adds every stage's map, brought down to the token grid, to the transformer's patch tokens."""

    def __init__(self, *, patch_sizes: Sequence[Size3], conv_chans: Sequence[int], dim: int) -> None:
        super().__init__()
        self.down_convs = nn.ModuleList()
        for stage, chans in enumerate(conv_chans):
            kernel = tuple(math.prod(sizes) for sizes in zip(*patch_sizes[stage + 1 :], strict=True))
            self.down_convs.append(nn.Conv3d(chans, dim, kernel_size=kernel, stride=kernel))
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def addend(self, skips: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sum the maps of all stages as tokens (B, N, dim)."""
        total = self.down_convs[0](skips[0])
        for conv, skip in zip(self.down_convs[1:], skips[1:], strict=True):
            total = total + conv(skip)
        return total.flatten(2).transpose(1, 2)

    def forward(self, tokens: torch.Tensor, addend: torch.Tensor) -> torch.Tensor:
        """Fuse patch tokens (B, N, dim) with their addend of the same shape."""
        return self.norm(tokens + addend)
