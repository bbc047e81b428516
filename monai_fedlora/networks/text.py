"""CLIP's text tower in plain torch, under parameter names of our own.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020. Its
blocks are those of :mod:`monai_fedlora.networks.vit`, with a causal attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.vit import Activation, Block


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """The shape of a text tower.

    Attributes:
        context: most tokens of a text, with the one that starts and the one that ends it.
        vocabulary: number of tokens; the last one ends a text.
        dim: width of the transformer, a multiple of ``n_heads``.
        depth: number of blocks.
        n_heads: attention heads.
        embed_dim: length of a text's feature vector, and of an image's that is compared with it.
        mlp_ratio: hidden width of the MLP over ``dim``.
        activation: of the MLP.
        norm_eps: added to the variance in every layer norm.
    """

    context: int
    vocabulary: int
    dim: int
    depth: int
    n_heads: int
    embed_dim: int
    mlp_ratio: int = 4
    activation: Activation = "quick_gelu"
    norm_eps: float = 1e-5

    qkv_bias: ClassVar[bool] = True
    layer_scale: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, least in (("context", 3), ("vocabulary", 2), ("depth", 1), ("n_heads", 1), ("embed_dim", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.dim < 1 or self.dim % self.n_heads:
            raise ConfigError(f"dim {self.dim} must be positive and a multiple of n_heads {self.n_heads}")

    @property
    def end(self) -> int:
        """The token that ends a text."""
        return self.vocabulary - 1


class TextTransformer(nn.Module):
    """Map texts as tokens (C, T) to feature vectors (C, embed_dim), not normalised.

    A text's feature is the last block's output, normed and projected, at its first end token. Nothing that follows the
    end token matters, since tokens see only those before them.

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
        self.blocks = nn.ModuleList(Block(settings, causal=True) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.projection = nn.Linear(settings.dim, settings.embed_dim, bias=False)
        self.apply(_initialise)
        nn.init.normal_(self.position, std=0.01)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Feature vectors (C, embed_dim) of tokens (C, T), T at most ``context``, each text with an end token."""
        return self.encode(self.token(ids), self.ends(ids))

    def ends(self, ids: torch.Tensor) -> torch.Tensor:
        """The place (C,) of the first end token of every text."""
        return (ids == self.settings.end).int().argmax(dim=-1)

    def encode(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Feature vectors (C, embed_dim) of embedded tokens (C, T, dim), without positions, that end at ``ends``."""
        x = tokens + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        last = x[torch.arange(len(x), device=x.device), ends]
        return self.projection(self.norm(last))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
