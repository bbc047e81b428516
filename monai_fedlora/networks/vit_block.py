"""The block of vision and text transformers: attention and MLP, each residual and after a layer norm.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; the quick GELU of CLIP (Radford et al.,
arXiv 2103.00020); layer scale and gated MLP of DINOv2 (Oquab et al., arXiv 2304.07193; Shazeer, arXiv 2002.05202).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.networks.attention import dot_product_attention
from monai_fedlora.networks.one_query import attend
from monai_fedlora.networks.rotary import Rotary

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
GATE = "silu"
"""What a gated MLP is gated by."""


class BlockSettings(Protocol):
    """What a block reads of its network's settings; see :class:`~monai_fedlora.networks.vit.ViTSettings`."""

    @property
    def dim(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def mlp_width(self) -> int: ...
    @property
    def gated(self) -> bool: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def norm_eps(self) -> float: ...
    @property
    def qkv_bias(self) -> bool: ...
    @property
    def key_bias(self) -> bool: ...
    @property
    def layer_scale(self) -> bool: ...


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
}


class Attention(nn.Module):
    """Multi-head self-attention on (B, N, D), with queries, keys and values projected apart.

    With a number of ``queries``, only that many first tokens ask, and the output is (B, queries, D).

    Args:
        settings: the network's.
        causal: whether a token sees only itself and those before it.
        rotary: turns queries and keys by their positions; None where tokens hold their positions.
    """

    def __init__(self, settings: BlockSettings, *, causal: bool = False, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.n_heads = settings.n_heads
        self.causal = causal
        self.rotary = rotary
        self.q = nn.Linear(settings.dim, settings.dim, bias=settings.qkv_bias)
        self.k = nn.Linear(settings.dim, settings.dim, bias=settings.qkv_bias and settings.key_bias)
        self.v = nn.Linear(settings.dim, settings.dim, bias=settings.qkv_bias)
        self.proj = nn.Linear(settings.dim, settings.dim)

    def forward(self, x: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        if queries == 1 and not self.causal and self.rotary is None:
            query = self.q(x[:, :1].contiguous()).squeeze(1)
            return self.proj(attend(x, query, self.k, self.v, n_heads=self.n_heads)).unsqueeze(1)
        # Contiguous, because PyTorch rounds a strided input otherwise where the weight trains than where it does not.
        query, key, value = (
            part.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for part in (self.q(x[:, :queries].contiguous()), self.k(x), self.v(x))
        )
        if self.rotary is not None:
            self.rotary.check(x)
            query, key = self.rotary(query), self.rotary(key)
        out = dot_product_attention(query, key, value, causal=self.causal)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.fc1 = nn.Linear(settings.dim, settings.mlp_width)
        self.fc2 = nn.Linear(settings.mlp_width, settings.dim)
        self.activation = _ACTIVATIONS[settings.activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class GatedMlp(nn.Module):
    """Two linear layers, and a third whose SiLU multiplies what lies between them (SwiGLU)."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.gate = nn.Linear(settings.dim, settings.mlp_width)
        self.fc1 = nn.Linear(settings.dim, settings.mlp_width)
        self.fc2 = nn.Linear(settings.mlp_width, settings.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.silu(self.gate(x)) * self.fc1(x))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each residual and after a layer norm; (B, N, D) to the same shape.

    With a number of ``queries``, to the output of that many first tokens alone, (B, queries, D).

    Args:
        settings: the network's.
        causal, rotary: see :class:`Attention`.
    """

    def __init__(self, settings: BlockSettings, *, causal: bool = False, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.attn = Attention(settings, causal=causal, rotary=rotary)
        self.ls1 = LayerScale(settings.dim) if settings.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.mlp = GatedMlp(settings) if settings.gated else Mlp(settings)
        self.ls2 = LayerScale(settings.dim) if settings.layer_scale else nn.Identity()

    def forward(self, x: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        x = x[:, :queries] + self.ls1(self.attn(self.norm1(x), queries))
        return x + self.ls2(self.mlp(self.norm2(x)))
