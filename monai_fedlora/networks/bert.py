"""BERT as the text tower of BiomedCLIP, in plain torch, under parameter names of our own.

Sources: Devlin et al., "BERT", arXiv 1810.04805; Zhang et al., "BiomedCLIP", arXiv 2303.00915, whose two-layer
projection reads the first token of the last block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.text import TokenKind, first_place
from monai_fedlora.networks.vit_block import Activation, Attention, Mlp


@dataclass(frozen=True, slots=True, kw_only=True)
class BertSettings:
    """The shape of a BERT that reads texts for images.

    Attributes:
        context: most tokens of a text, with the one that starts and the one that ends it.
        positions: rows of the table of positions, at least ``context``.
        vocabulary: number of tokens.
        dim: width of the transformer, a multiple of ``n_heads``.
        depth: number of blocks.
        n_heads: attention heads.
        embed_dim: length of a text's feature vector, and of an image's that is compared with it.
        end: number of the token that ends a text.
        mlp_ratio: hidden width of the MLP over ``dim``.
        norm_eps: added to the variance in every layer norm.
    """

    context: int
    positions: int
    vocabulary: int
    dim: int
    depth: int
    n_heads: int
    embed_dim: int
    end: int
    mlp_ratio: float = 4
    norm_eps: float = 1e-12

    tokens: ClassVar[TokenKind] = "word_pieces"
    activation: ClassVar[Activation] = "gelu"
    qkv_bias: ClassVar[bool] = True
    layer_scale: ClassVar[bool] = False
    gated: ClassVar[bool] = False
    key_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 3 <= self.context <= self.positions:
            raise ConfigError(f"context {self.context} must be at least 3 and at most positions {self.positions}")
        if self.dim < 1 or self.dim % self.n_heads:
            raise ConfigError(f"dim {self.dim} must be positive and a multiple of n_heads {self.n_heads}")
        if not 0 <= self.end < self.vocabulary:
            raise ConfigError(f"end {self.end} must be one of the {self.vocabulary} tokens")

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP."""
        return round(self.dim * self.mlp_ratio)

    @property
    def end_token(self) -> int:
        """The token that ends a text."""
        return self.end

    def build(self) -> BertTransformer:
        """A new tower of this shape."""
        return BertTransformer(self)


class MaskedAttention(Attention):
    """Self-attention of (C, T, D) to those tokens alone that ``mask`` (C, T) names."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        query, key, value = (
            part.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for part in (self.q(x), self.k(x), self.v(x))
        )
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        return self.proj(out.transpose(1, 2).flatten(2))


class BertBlock(nn.Module):
    """Attention and MLP, each residual and before a layer norm; (C, T, D) to the same shape."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        self.attn = MaskedAttention(settings)
        self.norm1 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.mlp = Mlp(settings)
        self.norm2 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.attn(x, mask))
        return self.norm2(x + self.mlp(x))


class BertTransformer(nn.Module):
    """Map texts as tokens (C, T) to feature vectors (C, embed_dim), not normalised.

    A text's feature is the last block's output at its first token, projected by two layers. Tokens see those up to the
    text's first end token. The embedding of the only type of tokens is part of the positions.

    Args:
        settings: the shape.
    """

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        self.settings = settings
        self.token = nn.Embedding(settings.vocabulary, settings.dim)
        self.position = nn.Parameter(torch.zeros(settings.positions, settings.dim))
        self.norm = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.blocks = nn.ModuleList(BertBlock(settings) for _ in range(settings.depth))
        hidden = (settings.dim + settings.embed_dim) // 2
        self.projection = nn.Sequential(
            nn.Linear(settings.dim, hidden, bias=False), nn.GELU(), nn.Linear(hidden, settings.embed_dim, bias=False)
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Feature vectors (C, embed_dim) of tokens (C, T), T at most ``context``, each text with an end token."""
        return self.encode(self.token(ids), self.ends(ids))

    def ends(self, ids: torch.Tensor) -> torch.Tensor:
        """The place (C,) of the first end token of every text."""
        return first_place(ids, self.settings.end_token)

    def encode(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Feature vectors (C, embed_dim) of embedded tokens (C, T, dim), without positions, that end at ``ends``."""
        length = tokens.shape[1]
        mask = torch.arange(length, device=tokens.device) <= ends[:, None]
        x = self.norm(tokens + self.position[:length])
        for block in self.blocks:
            x = block(x, mask)
        return self.projection(x[:, 0])
