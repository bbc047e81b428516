"""Reading all tokens through one learned query, as SigLIP's image tower does.

Sources: Zhai et al., "Scaling Vision Transformers", arXiv 2106.04560, section 3.2; Zhai et al., "Sigmoid Loss for
Language Image Pre-Training", arXiv 2303.15343.
"""

from __future__ import annotations

import torch
from torch import nn

from monai_fedlora.networks.one_query import attend
from monai_fedlora.networks.vit_block import Attention, BlockSettings, Mlp


class AttentionPool(nn.Module):
    """Map tokens (B, N, D) to one feature vector (B, D): what a learned query reads, and an MLP, which is residual.

    Args:
        settings: of the network's blocks.
    """

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, settings.dim))
        self.attn = Attention(settings)
        self.norm = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.mlp = Mlp(settings)
        nn.init.normal_(self.probe, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        attn = self.attn
        query = attn.q(self.probe[0]).expand(tokens.shape[0], -1)
        x = attn.proj(attend(tokens, query, attn.k, attn.v, n_heads=attn.n_heads))
        return x + self.mlp(self.norm(x))
