"""The text towers of CLIP and of SigLIP in plain torch, under parameter names of our own.

Sources: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020; Zhai
et al., "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343. The blocks are those of
:mod:`monai_fedlora.networks.vit_block`, with a causal attention for CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.vit_block import Activation, Block

PieceKind = Literal["word_pieces", "siglip", "siglip2"]
TokenKind = Literal["byte_pairs"] | PieceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """The shape of a text tower.

    Attributes:
        context: most tokens of a text, with the one that ends it and, if there is one, the one that starts it.
        vocabulary: number of tokens.
        dim: width of the transformer, a multiple of ``n_heads``.
        depth: number of blocks.
        n_heads: attention heads.
        embed_dim: length of a text's feature vector, and of an image's that is compared with it.
        tokens: how texts are taken apart.
        mlp_ratio: hidden width of the MLP over ``dim``.
        activation: of the MLP.
        norm_eps: added to the variance in every layer norm.
        causal: whether a token sees only itself and those before it; if so, a text's feature is read at its end, else
            at the last place of a text that was filled up to ``context``.
        projection_bias: whether the projection to ``embed_dim`` has one.
        end: number of the token that ends a text; None for the last one.
        pad: number of the token that fills a text up; None for the one that ends it.
    """

    context: int
    vocabulary: int
    dim: int
    depth: int
    n_heads: int
    embed_dim: int
    tokens: TokenKind = "byte_pairs"
    mlp_ratio: float = 4
    activation: Activation = "quick_gelu"
    norm_eps: float = 1e-5
    causal: bool = True
    projection_bias: bool = False
    end: int | None = None
    pad: int | None = None

    qkv_bias: ClassVar[bool] = True
    key_bias: ClassVar[bool] = True
    layer_scale: ClassVar[bool] = False
    gated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, least in (("context", 3), ("vocabulary", 2), ("depth", 1), ("n_heads", 1), ("embed_dim", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.dim < 1 or self.dim % self.n_heads:
            raise ConfigError(f"dim {self.dim} must be positive and a multiple of n_heads {self.n_heads}")

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP."""
        return round(self.dim * self.mlp_ratio)

    @property
    def end_token(self) -> int:
        """The token that ends a text."""
        return self.vocabulary - 1 if self.end is None else self.end

    @property
    def pad_token(self) -> int:
        """The token that fills a text up."""
        return self.end_token if self.pad is None else self.pad

    def build(self) -> TextTransformer:
        """A new tower of this shape."""
        return TextTransformer(self)


class TextTransformer(nn.Module):
    """Map texts as tokens (C, T) to feature vectors (C, embed_dim), not normalised.

    CLIP: a text's feature is the last block's output, normed and projected, at its first end token. Nothing that
    follows the end token matters, since tokens see only those before them. SigLIP: tokens see all others, a text is
    filled up to the full context, and its feature is read at the last place.

    A new network has tokens drawn with a standard deviation of 0.02, positions with 0.01 (as CLIP's), Xavier-uniform
    linear layers and zero biases.

    Args:
        settings: the shape.
    """

    def __init__(self, settings: TextSettings) -> None:
        super().__init__()
        self.settings = settings
        self.token = nn.Embedding(settings.vocabulary, settings.dim)
        self.position = nn.Parameter(torch.empty(settings.context, settings.dim))
        self.blocks = nn.ModuleList(Block(settings, causal=settings.causal) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.projection = nn.Linear(settings.dim, settings.embed_dim, bias=settings.projection_bias)
        self.apply(_initialise)
        nn.init.normal_(self.position, std=0.01)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Feature vectors (C, embed_dim) of tokens (C, T), T at most ``context``, each text with an end token.

        Behind its end a text holds tokens that fill it up.
        """
        return self.encode(self.token(ids), self.ends(ids))

    def ends(self, ids: torch.Tensor) -> torch.Tensor:
        """The place (C,) of the first end token of every text."""
        return first_place(ids, self.settings.end_token)

    def encode(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Feature vectors (C, embed_dim) of embedded tokens (C, T, dim), without positions, that end at ``ends``."""
        if not self.settings.causal:
            tokens, ends = self._filled_up(tokens), torch.full_like(ends, self.settings.context - 1)
        x = tokens + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        last = x[torch.arange(len(x), device=x.device), ends]
        return self.projection(self.norm(last))

    def _filled_up(self, tokens: torch.Tensor) -> torch.Tensor:
        pad = self.token.weight[self.settings.pad_token]
        missing = self.settings.context - tokens.shape[1]
        return torch.cat([tokens, pad.expand(len(tokens), missing, -1)], dim=1)


def first_place(ids: torch.Tensor, token: int) -> torch.Tensor:
    """The place (C,) of the first such token of every text in ``ids`` (C, T)."""
    return (ids == token).int().argmax(dim=-1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
