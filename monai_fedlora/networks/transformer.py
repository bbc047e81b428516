"""The pre-norm transformer of CineMA, with queries and key-values projected apart.

Source: Fu et al., arXiv 2506.00679; Dosovitskiy et al., arXiv 2010.11929. Parameter names are those of the
released weights.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.networks.attention import dot_product_attention

_EPS = 1e-5


class Attention(nn.Module):
    """Multi-head self-attention on (B, N, dim).

    With a number of ``queries``, only that many first tokens ask, and the output is (B, queries, dim).
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        # Contiguous, because PyTorch rounds a strided input otherwise where the weight trains than where it does not.
        query = self.q(x[:, :queries].contiguous()).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
        key, value = self.kv(x).unflatten(2, (2, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each residual and after a layer norm; (B, N, dim) to the same shape.

    With a number of ``queries``, to the output of that many first tokens alone, (B, queries, dim).
    """

    def __init__(self, dim: int, n_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attn = Attention(dim, n_heads)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = Mlp(dim, dim * mlp_ratio)

    def forward(self, x: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        x = x[:, :queries] + self.attn(self.norm1(x), queries)
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """The class token, the blocks and the final norm; the caller runs the blocks."""

    def __init__(self, *, dim: int, depth: int, n_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, n_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)

    def prepend(self, tokens: torch.Tensor) -> torch.Tensor:
        """Put the class token, which has no position, in front: (B, N, dim) to (B, 1 + N, dim)."""
        return torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for a linear layer; other modules stay as they are."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
