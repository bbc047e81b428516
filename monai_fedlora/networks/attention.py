"""Scaled dot-product attention by the kernel that is fastest where it runs.

Source: Vaswani et al., arXiv 1706.03762, eq. 1.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

LARGEST_ATTENTION = 2**29
"""Bytes (ours) up to which the attention weights of all pairs of tokens are kept for the backward pass."""


def dot_product_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool = False
) -> torch.Tensor:
    """Weigh the values of the tokens by how well their keys meet each query.

    PyTorch's fused kernel computes it in blocks and keeps no attention weights. In bfloat16 on a processor that kernel
    gains nothing over float32, and plain matrix products, head by head, take about half its time in training; they
    round the scores to bfloat16 before the softmax, and keep the attention weights of all pairs where gradients are
    needed. Above :data:`LARGEST_ATTENTION` the fused kernel saves that memory.

    Args:
        query: (B, H, M, d), where H is the number of heads.
        key, value: (B, H, N, d).
        causal: whether a token sees only itself and those before it.

    Returns:
        (B, H, M, d).
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not causal:
        pairs = math.prod(query.shape[:3]) * key.shape[2]
        if pairs * query.element_size() <= LARGEST_ATTENTION:
            return _by_heads(query, key, value)
    return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)


def _by_heads(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    heads = zip((query * query.shape[3] ** -0.5).unbind(1), key.unbind(1), value.unbind(1), strict=True)
    return torch.stack([torch.softmax(q @ k.transpose(1, 2), dim=2) @ v for q, k, v in heads], dim=1)
