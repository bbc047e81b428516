"""Features of a pre-trained backbone brought to zero mean and unit scale, inside its own last norms.

Features averaged over many tokens share a large constant and differ little between images, so that a linear head spends
its steps on the constant. He et al., arXiv 2111.06377 (appendix A.1), put a batch norm without parameters in front of
the linear classifier for that reason. Its statistics over the images of the pre-training are folded into the weights
here, without labels: the architecture stays, and nothing is left to estimate on a site's few patients.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.vit import VisionTransformer

# Floor of a standard deviation, relative to the mean one over the channels (ours): a channel without information stays.
_FLOOR = 0.1


@torch.no_grad()
def standardise_readout(backbone: ConvViT | VisionTransformer, batches: Iterable[torch.Tensor]) -> None:
    """Change the last norms in place so that what the heads read is standardised over these images.

    Vision transformer: every channel of the pooled feature gets mean 0 and standard deviation 1. ConvViT: so does the
    mean fused patch token. The class token leaves a norm that it shares with the patch tokens; it gets mean 0 and, over
    all channels together, mean square 1. The fusion is shifted and scaled to match, so that it fuses what it fused
    before, up to the epsilon of its norm.

    Args:
        backbone: a pre-trained network.
        batches: images as the network takes them, at least two in all.
    """
    was_training = backbone.training
    backbone.eval()
    if isinstance(backbone, VisionTransformer):
        pooled = torch.cat([backbone.pool(_last(backbone, batch)) for batch in batches])
        _fold(backbone.norm, pooled.mean(dim=0), _deviation(pooled))
    else:
        readouts = [_convvit_readouts(backbone, _last(backbone, batch)) for batch in batches]
        patch, token = (torch.cat(parts) for parts in zip(*readouts, strict=True))
        _fold(backbone.fusion.norm, patch.mean(dim=0), _deviation(patch))
        mean = token.mean(dim=0)
        scale = (token - mean).square().mean().sqrt()
        _fold(backbone.encoder.norm, mean, scale)
        convolutions = [cast(nn.Conv3d, convolution) for convolution in backbone.fusion.down_convs]
        cast(torch.Tensor, convolutions[0].bias).add_(mean)
        for convolution in convolutions:
            convolution.weight.div_(scale)
            cast(torch.Tensor, convolution.bias).div_(scale)
    backbone.train(was_training)


@torch.no_grad()
def standardise_patches(backbone: ConvViT, batches: Iterable[torch.Tensor]) -> None:
    """Change the fusion's norm in place so that every channel of the mean fused patch token is standardised.

    No other output changes: a decoder that reads the same encoder reads what it read before.

    Args:
        backbone: a pre-trained network.
        batches: images as the network takes them, at least two in all.
    """
    was_training = backbone.training
    backbone.eval()
    patch = torch.cat([_convvit_readouts(backbone, _last(backbone, batch))[0] for batch in batches])
    _fold(backbone.fusion.norm, patch.mean(dim=0), _deviation(patch))
    backbone.train(was_training)


def _last(backbone: ConvViT | VisionTransformer, images: torch.Tensor) -> Features:
    """The output of the last block."""
    return backbone.prefix(images, len(backbone.blocks))


def _convvit_readouts(backbone: ConvViT, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean fused patch token and the class token, each (B, D)."""
    tokens = backbone.encoder.norm(features.tokens)
    return backbone.fusion(tokens[:, 1:], features.addend).mean(dim=1), tokens[:, 0]


def _deviation(features: torch.Tensor) -> torch.Tensor:
    """The standard deviation of every channel of (B, D), not below a tenth of the mean one."""
    deviation = features.std(dim=0, correction=0)
    return deviation.clamp(min=_FLOOR * float(deviation.mean()))


def _fold(norm: nn.LayerNorm, mean: torch.Tensor, scale: torch.Tensor) -> None:
    """Let a norm's output be less ``mean`` and over ``scale``."""
    norm.bias.sub_(mean).div_(scale)
    norm.weight.div_(scale)
