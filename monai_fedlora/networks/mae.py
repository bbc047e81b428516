"""A masked auto-encoder that pre-trains a backbone without labels.

Source of the idea: He et al., arXiv 2111.06377 (random masking, an encoder on visible tokens only, a light
decoder, the error on normalised masked patches); for the ConvViT with the masked convolutions of ConvMAE (Gao et al.,
arXiv 2205.03892). The decoder's sizes are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.conv_stem import patchify
from monai_fedlora.networks.position import sincos_position
from monai_fedlora.networks.transformer import Block, init_linear
from monai_fedlora.networks.vit import CHANNELS, VisionTransformer

# Floor of a patch's variance (ours): patches of air and lung hold little but noise and should weigh little.
_TARGET_EPS = 1e-2


def random_visible(batch: int, n_tokens: int, n_keep: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Choose ``n_keep`` of ``n_tokens`` for each image, uniformly: their indices (batch, n_keep), ascending."""
    noise = torch.rand(batch, n_tokens, generator=generator)
    return noise.argsort(dim=1)[:, :n_keep].sort(dim=1).values


class MaskedAutoencoder(nn.Module):
    """Predicts the masked patches of an image from the visible ones.

    Everything of the backbone takes part but its heads.

    Args:
        backbone: the network to pre-train, changed in place.
        mask_ratio: share of the tokens that is masked, in (0, 1); the default is the paper's.
        decoder_dim: width of the decoder (ours).
        decoder_depth: blocks of the decoder (ours).
        decoder_heads: attention heads of the decoder (ours).

    Raises:
        ConfigError: a mask ratio that leaves no visible or no masked token.
    """

    decoder_position: torch.Tensor

    def __init__(
        self,
        backbone: ConvViT | VisionTransformer,
        *,
        mask_ratio: float = 0.75,
        decoder_dim: int = 48,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
    ) -> None:
        super().__init__()
        if isinstance(backbone, VisionTransformer):
            grid: Sequence[int] = backbone.embed.grid[::-1]  # the table's first axis is the one that runs fastest
            dim, channels = backbone.settings.dim, CHANNELS
            self.token_size = (backbone.settings.patch, backbone.settings.patch, 1)
        else:
            grid = backbone.stem.grid
            dim, channels = backbone.encoder.cls_token.shape[-1], backbone.n_frames
            self.token_size = backbone.token_size
        self.n_tokens = math.prod(grid)
        self.n_keep = round(self.n_tokens * (1 - mask_ratio)) if 0 < mask_ratio < 1 else 0
        if not 0 < self.n_keep < self.n_tokens:
            raise ConfigError(
                f"mask_ratio {mask_ratio} leaves no visible or no masked token of {self.n_tokens}; "
                "it must lie between 0 and 1"
            )
        self.backbone = backbone
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.register_buffer("decoder_position", sincos_position(decoder_dim, grid).unsqueeze(0), persistent=False)
        self.decoder_blocks = nn.ModuleList(Block(decoder_dim, decoder_heads, 4) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_dim)
        self.predict = nn.Linear(decoder_dim, math.prod(self.token_size) * channels)
        for module in (self.decoder_embed, self.decoder_blocks, self.predict):
            module.apply(init_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def reconstruct(self, image: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Predict every patch from the visible ones.

        Args:
            image: (B, n_frames, X, Y, Z) or (B, 3, H, W) of the backbone's image size.
            keep: (B, n_keep), the indices of the visible tokens; nothing else of the image is used.

        Returns:
            (B, N, P), each patch normalised and laid out as by ``patchify``.
        """
        if isinstance(self.backbone, VisionTransformer):
            encoded = _encode_vit(self.backbone, image, keep)
        else:
            encoded = _encode_convvit(self.backbone, image, keep)
        hidden = self.decoder_embed(encoded).float()  # under autocast it is no type that fits into the mask tokens
        batch, dim = len(hidden), hidden.shape[-1]
        front = hidden.shape[1] - keep.shape[1]
        tokens = self.mask_token.expand(batch, self.n_tokens, -1)
        tokens = tokens.scatter(1, keep.unsqueeze(-1).expand(-1, -1, dim), hidden[:, front:])
        hidden = torch.cat([hidden[:, :front], tokens + self.decoder_position], dim=1)
        for block in self.decoder_blocks:
            hidden = block(hidden)
        return self.predict(self.decoder_norm(hidden[:, front:]))

    def forward(self, image: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """The mean squared error over the masked patches, each less its mean and over its standard deviation."""
        target = patchify(image.reshape(*image.shape, *[1] * (5 - image.ndim)), self.token_size)
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + _TARGET_EPS).sqrt()
        error = (self.reconstruct(image, keep) - target).square().mean(dim=-1)
        masked = torch.ones_like(error).scatter(1, keep, 0.0)
        return (error * masked).sum() / masked.sum()

    def backbone_state(self) -> dict[str, torch.Tensor]:
        """The backbone's state dict without its untrained heads, which ``load_backbone`` reads."""
        state = self.backbone.state_dict()
        return {key: value for key, value in state.items() if not key.startswith(self.backbone.head_prefixes)}


def _encode_convvit(backbone: ConvViT, image: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The class token and the fused visible tokens, (B, 1 + n_keep, D)."""
    grid = backbone.stem.grid
    visible = image.new_zeros(len(image), math.prod(grid)).scatter(1, keep, 1.0).reshape(-1, *grid)
    tokens, skips = backbone.stem(image, grid, visible)
    index = keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    hidden = backbone.encoder.prepend(tokens.gather(1, index))
    for block in backbone.blocks:
        hidden = block(hidden)
    hidden = backbone.encoder.norm(hidden)
    fused = backbone.fusion(hidden[:, 1:], backbone.fusion.addend(skips).gather(1, index))
    return torch.cat([hidden[:, :1], fused], dim=1)


def _encode_vit(backbone: VisionTransformer, image: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The class token, registers and the visible tokens, (B, P + n_keep, D)."""
    tokens = backbone.embed.patches(image)
    hidden = backbone.embed.prepend(tokens.gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])))
    for block in backbone.blocks:
        hidden = block(hidden)
    return backbone.norm(hidden)
