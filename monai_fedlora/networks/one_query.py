"""Multi-head attention of one token to all, without keys or values of all.

What a single query q asks for is linear in the tokens, so that the projections can move to its side of the softmax:

    q_h . (K_h x_j + b_h) = (K_h^T q_h) . x_j + q_h . b_h
    sum_j a_hj V_h(x_j) = V_h(sum_j a_hj x_j)                V is affine and the attention weights a_hj add up to 1

Per head a (D,) query meets the tokens themselves, and V sees as many tokens as there are heads. With N tokens of width
D this takes about N * D * H multiply-adds in place of N * D * D each.
"""

from __future__ import annotations

import torch
from torch import nn

from monai_fedlora.networks.frozen_weights import product_weight


def attend(x: torch.Tensor, query: torch.Tensor, key: nn.Module, value: nn.Module, *, n_heads: int) -> torch.Tensor:
    """What each head of one query reads from all tokens.

    Args:
        x: tokens (B, N, D).
        query: the projected query (B, D).
        key: the layer that makes keys. One that is more than linear, such as one with an adapter, runs on all tokens.
        value: the layer that makes values. One with dropout, which is no affine map, runs on all tokens.
        n_heads: of the attention.

    Returns:
        The heads' readings side by side, (B, D).
    """
    query = query.unflatten(1, (n_heads, -1))
    if type(key) is nn.Linear:
        asked = torch.einsum("bhd,hdc->bhc", query, product_weight(key).unflatten(0, (n_heads, -1)))
        scores = asked @ x.transpose(1, 2)
        if key.bias is not None:
            scores = scores + (query * key.bias.unflatten(0, (n_heads, -1))).sum(2, keepdim=True)
    else:
        scores = torch.einsum("bhd,bnhd->bhn", query, key(x).unflatten(2, (n_heads, -1)))
    attention_weights = torch.softmax(scores * query.shape[2] ** -0.5, dim=2)
    if any(isinstance(module, nn.Dropout) for module in value.modules()):
        return torch.einsum("bhn,bnhd->bhd", attention_weights, value(x).unflatten(2, (n_heads, -1))).flatten(1)
    of_all_heads = value(attention_weights @ x).unflatten(2, (n_heads, -1))
    return of_all_heads.diagonal(dim1=1, dim2=2).transpose(1, 2).flatten(1)
