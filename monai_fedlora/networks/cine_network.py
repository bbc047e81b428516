"""What CineMA's networks for short-axis cines share: a convolutional stem and a transformer, cut between its blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.conv_stem import ConvStem, Size3
from monai_fedlora.networks.cut import CutNetwork
from monai_fedlora.networks.tracing import fixed_shape
from monai_fedlora.networks.transformer import Encoder

VIEW = "sax"
"""The short-axis view, by which the released weights name the parts that belong to one view."""


class CineNetwork(CutNetwork):
    """The stem `enc_down_dict`, the transformer `encoder`, and the images that both take.

    A subclass makes the two modules and the readout, in the order in which its random values are drawn.

    Args:
        image_size: X, Y, Z in voxels.
        n_frames: frames of the cine on the channel axis, end-diastole first.
        patch_size: stride of the first stage along x, y, z.
        scale_factor: stride of every later stage and of the final patches.
        conv_chans: channels of each convolutional stage.

    Raises:
        ConfigError: the sizes contradict each other.
    """

    target_names: Mapping[str, str] = {
        "q": "attn.q",
        "k": "attn.kv",
        "v": "attn.kv",
        "proj": "attn.proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    }
    enc_down_dict: nn.ModuleDict
    encoder: Encoder

    def __init__(
        self,
        *,
        image_size: Sequence[int],
        n_frames: int,
        patch_size: Sequence[int],
        scale_factor: Sequence[int],
        conv_chans: Sequence[int],
    ) -> None:
        super().__init__()
        sizes = {"image_size": image_size, "patch_size": patch_size, "scale_factor": scale_factor}
        for name, values in sizes.items():
            if len(values) != 3 or any(value < 1 for value in values):
                raise ConfigError(f"{name} must be three positive numbers (x, y, z), not {tuple(values)}")
        check_counts(n_frames=n_frames)
        if not conv_chans:
            raise ConfigError("number of conv_chans must be at least 1, not 0")
        self.image_size = size3(image_size)
        self.n_frames = n_frames
        self.patch_sizes = [size3(patch_size), *[size3(scale_factor)] * len(conv_chans)]
        self.token_size = size3([math.prod(strides) for strides in zip(*self.patch_sizes, strict=True)])
        self.grid(image_size)

    def new_stem(self, *, conv_chans: Sequence[int], conv_n_blocks: int, dim: int, mlp_ratio: int) -> nn.ModuleDict:
        """The stem, by the name of its view."""
        stem = ConvStem(
            in_chans=self.n_frames,
            grid=self.grid(self.image_size),
            patch_sizes=self.patch_sizes,
            conv_chans=conv_chans,
            conv_n_blocks=conv_n_blocks,
            dim=dim,
            mlp_ratio=mlp_ratio,
        )
        return nn.ModuleDict({VIEW: stem})

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        return self.encoder.blocks

    @property
    def stem(self) -> ConvStem:
        """From images to tokens."""
        return cast(ConvStem, self.enc_down_dict[VIEW])

    def block_name(self, block: int) -> str:
        """The dotted module path of a block."""
        return f"encoder.blocks.{block}"

    def grid(self, image_size: Sequence[int]) -> Size3:
        """The number of tokens along x, y, z of an image.

        Raises:
            ConfigError: an axis is no multiple of the token's size.
        """
        if any(size < 1 or size % token for size, token in zip(image_size, self.token_size, strict=True)):
            raise ConfigError(
                f"the image size {tuple(image_size)} is no multiple of the token size {self.token_size} "
                "(patch_size times the scale factors); crop or pad the images to one"
            )
        return size3([size // token for size, token in zip(image_size, self.token_size, strict=True)])

    def grid_of(self, x: torch.Tensor) -> Size3:
        """The number of tokens along x, y, z of images (B, n_frames, X, Y, Z).

        Raises:
            ConfigError: they have another shape, or an axis is no multiple of the token's size.
        """
        shape = fixed_shape(x)
        if len(shape) != 5 or shape[1] != self.n_frames:
            raise ConfigError(f"expected images (B, {self.n_frames}, X, Y, Z), not {shape}")
        return self.grid(shape[2:])


def check_counts(**counts: int) -> None:
    """Refuse numbers below 1.

    Raises:
        ConfigError: one is.
    """
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")


def check_heads(embed_dim: int, n_heads: int) -> None:
    """Refuse a transformer's width that its attention heads cannot share.

    Raises:
        ConfigError: it is below 6 or no multiple of ``n_heads``.
    """
    if embed_dim % n_heads or embed_dim < 6:
        raise ConfigError(
            f"embed_dim {embed_dim} must be at least 6 and a multiple of n_heads {n_heads}: "
            "each head gets an equal part of the width"
        )


def size3(values: Sequence[int]) -> Size3:
    """Three whole numbers, for x, y and z."""
    x, y, z = (int(value) for value in values)
    return x, y, z
