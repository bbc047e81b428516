"""CineMA's segmentation network for short-axis cine CMR, in plain torch.

Source: Fu et al., "CineMA: A foundation model for cine cardiac magnetic resonance", arXiv 2506.00679, after
UNETR (Hatamizadeh et al., arXiv 2103.10504). The state-dict keys are those of the released weights, restricted to the
short-axis view ``sax``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.cine_network import VIEW, CineNetwork, check_counts, check_heads
from monai_fedlora.networks.conv_stem import PointwiseConv, Size3
from monai_fedlora.networks.transformer import Encoder, init_linear
from monai_fedlora.networks.up_decoder import RELEASED_DECODER, DecoderSettings, ResBlock, UpDecoder


class ConvUNetR(CineNetwork):
    """The stem and the transformer of :class:`~monai_fedlora.networks.cinema.ConvViT`, and a convolutional decoder.

    Maps (B, n_frames, X, Y, Z) to logits (B, n_frames, out_chans, X, Y, Z): one network sees all frames at once and
    labels each. Images of another size than ``image_size`` work as long as every axis is a multiple of what the
    decoder's coarsest voxel covers.

    The decoder is the network's head: it trains wherever a method trains the head, and is shared or private with it.
    Between two blocks the image and the stem's maps travel in `Features.addend`, so that the decoder runs on kept
    features as on computed ones.

    Args:
        image_size: X, Y, Z in voxels.
        n_frames: frames of the cine on the channel axis, end-diastole first.
        out_chans: channels per frame: the background and each structure.
        patch_size: stride of the first stage along x, y, z.
        scale_factor: stride of every later stage and of the final patches.
        conv_chans: channels of each convolutional stage.
        conv_n_blocks: blocks in each stage.
        embed_dim: width of the transformer.
        depth: number of transformer blocks.
        n_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: hidden width of every MLP over its input width.
        decoder: the decoder's shape.
        skip_drop: probability with which a sample in training mode is decoded from its tokens alone, without the image
            and the stem's maps, so that the tokens learn to hold the mask (ours).

    Raises:
        ConfigError: the sizes contradict each other.
    """

    head_prefixes: tuple[str, ...] = (
        "dec_image_conv_block_dict.",
        "dec_down_blocks_dict.",
        "dec_conv_blocks_dict.",
        "decoder_dict.",
        "pred_head_dict.",
    )

    def __init__(
        self,
        *,
        image_size: Sequence[int],
        n_frames: int,
        out_chans: int,
        patch_size: Sequence[int],
        scale_factor: Sequence[int],
        conv_chans: Sequence[int],
        conv_n_blocks: int,
        embed_dim: int,
        depth: int,
        n_heads: int,
        mlp_ratio: int = 4,
        decoder: DecoderSettings = RELEASED_DECODER,
        skip_drop: float = 0.0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            n_frames=n_frames,
            patch_size=patch_size,
            scale_factor=scale_factor,
            conv_chans=conv_chans,
        )
        check_counts(out_chans=out_chans, depth=depth, n_heads=n_heads, mlp_ratio=mlp_ratio)
        check_heads(embed_dim, n_heads)
        if not 0 <= skip_drop < 1:
            raise ConfigError(f"skip_drop must be a probability in [0, 1), not {skip_drop}")
        n_plain, n_down = decoder.levels(self.patch_sizes)
        self.out_chans = out_chans
        self.skip_drop = skip_drop
        self.n_plain = n_plain
        self.conv_chans = tuple(conv_chans)
        self.down = tuple(step**n_down for step in decoder.scale_factor)

        self.enc_down_dict = self.new_stem(
            conv_chans=conv_chans, conv_n_blocks=conv_n_blocks, dim=embed_dim, mlp_ratio=mlp_ratio
        )
        self.encoder = Encoder(dim=embed_dim, depth=depth, n_heads=n_heads, mlp_ratio=mlp_ratio)
        kernel, scale = decoder.kernel_size, decoder.scale_factor
        self.dec_image_conv_block_dict = nn.ModuleDict({VIEW: ResBlock(n_frames, decoder.chans[0], kernel)})
        down = (nn.Conv3d(embed_dim, embed_dim, kernel_size=scale, stride=scale) for _ in range(n_down))
        self.dec_down_blocks_dict = nn.ModuleDict({VIEW: nn.ModuleList(down)})
        inputs = (*conv_chans, *[embed_dim] * (n_down + 1))
        adapted = (
            ResBlock(before, after, kernel) for before, after in zip(inputs, decoder.chans[n_plain:], strict=True)
        )
        self.dec_conv_blocks_dict = nn.ModuleDict({VIEW: nn.ModuleList(adapted)})
        self.decoder_dict = nn.ModuleDict({VIEW: UpDecoder(decoder)})
        self.pred_head_dict = nn.ModuleDict({VIEW: PointwiseConv(decoder.chans[0], n_frames * out_chans)})
        self.apply(init_linear)
        nn.init.normal_(self.encoder.cls_token, std=0.02)
        self.grid(image_size)

    @property
    def reads_class_token_alone(self) -> bool:
        """Whether the readout ignores all tokens but the class token, which it does not read at all."""
        return False

    def grid(self, image_size: Sequence[int]) -> Size3:
        """The number of tokens along x, y, z of an image.

        Raises:
            ConfigError: an axis is no multiple of what a token, or the decoder's coarsest voxel, covers.
        """
        grid = super().grid(image_size)
        coarsest: Sequence[int] = getattr(self, "down", (1, 1, 1))
        if any(count % step for count, step in zip(grid, coarsest, strict=True)):
            whole = tuple(token * step for token, step in zip(self.token_size, coarsest, strict=True))
            raise ConfigError(
                f"the image size {tuple(image_size)} is no multiple of {whole}, which a voxel of the decoder's "
                "coarsest map covers; crop or pad the images to one"
            )
        return grid

    def embed(self, x: torch.Tensor) -> Features:
        """Turn images (B, n_frames, X, Y, Z) into the input of block 0, and keep what the decoder reads beside it.

        The addend is one flat tensor per sample, the image and then the stem's maps with the channel fastest, given in
        the shape (B, gx, gy, gz, K) of the grid of tokens so that it says how large the image is.
        """
        grid = self.grid_of(x)
        tokens, skips = self.stem(x, grid)
        flat = torch.cat([_last(x), *(_last(skip) for skip in skips)], dim=1)
        return Features(self.encoder.prepend(tokens), flat.unflatten(1, (*grid, -1)))

    def readout(self, features: Features) -> torch.Tensor:
        """Turn the last block's output into logits (B, n_frames, out_chans, X, Y, Z)."""
        image, *skips = self._unpacked(features.addend)
        return self.decode(self.encoder.norm(features.tokens)[:, 1:], skips, image)

    def decode(self, tokens: torch.Tensor, skips: Sequence[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Turn patch tokens (B, N, D) behind the encoder's norm, the stem's maps and the image into logits."""
        maps = [tokens.unflatten(1, self.grid_of(image)).permute(0, 4, 1, 2, 3)]
        for block in cast(nn.ModuleList, self.dec_down_blocks_dict[VIEW]):
            maps.append(block(maps[-1]))
        blocks = cast(nn.ModuleList, self.dec_conv_blocks_dict[VIEW])
        adapted = [block(part) for block, part in zip(blocks, [*skips, *maps], strict=True)]
        finest = self.dec_image_conv_block_dict[VIEW](image)
        if self.training and self.skip_drop:
            kept = (torch.rand(len(image), 1, 1, 1, 1, device=image.device) >= self.skip_drop).to(finest.dtype)
            finest = finest * kept
            adapted[: len(skips)] = [part * kept for part in adapted[: len(skips)]]
        decoded = self.decoder_dict[VIEW]([finest, *[None] * self.n_plain, *adapted])
        return self.pred_head_dict[VIEW](decoded).unflatten(1, (self.n_frames, self.out_chans))

    def _unpacked(self, addend: torch.Tensor) -> list[torch.Tensor]:
        """The image and the stem's maps, each (B, C, X', Y', Z') in channels-last memory."""
        grid = addend.shape[1:4]
        strides, shapes = (1, 1, 1), []
        for chans, stride in zip((self.n_frames, *self.conv_chans), self.patch_sizes, strict=True):
            sizes = [n * token // step for n, token, step in zip(grid, self.token_size, strides, strict=True)]
            shapes.append((*sizes, chans))
            strides = tuple(a * b for a, b in zip(strides, stride, strict=True))  # type: ignore[assignment]
        parts = addend.flatten(1).split([math.prod(shape) for shape in shapes], dim=1)
        return [part.unflatten(1, shape).permute(0, 4, 1, 2, 3) for part, shape in zip(parts, shapes, strict=True)]


def _last(x: torch.Tensor) -> torch.Tensor:
    """A map (B, C, X, Y, Z) as (B, X*Y*Z*C), the channel fastest; no copy of a channels-last one."""
    return x.permute(0, 2, 3, 4, 1).flatten(1)
