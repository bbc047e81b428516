"""A small module on CLIP's projected image features, before they are compared with texts.

With f the projected feature of an image (E values, not normalised), the comparison is with the direction of

    attention:  f * E softmax(W2 tanh(W1 f + b1) + b2)
    residual:   f + ratio / (1 - ratio) W2 relu(W1 f)

The first is the adapter of FedCLIP (Lu et al., arXiv 2302.13485). The factor E, which the normalisation takes away, is
ours; so is a second layer of zeros, which makes the weights equal at the start. The second is the image adapter of
CLIP-Adapter (Gao et al., arXiv 2110.04544, eq. 3 and 5), which mixes (1 - ratio) f + ratio W2 relu(W1 f): we divide by
1 - ratio, which the normalisation takes away, and begin with W2 = 0. Untrained, both are CLIP to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.text_head import CosineHead

PREFIX = "head.adapter."


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAdapterSettings:
    """The form of an adapter.

    Args:
        form: "attention" or "residual".
        reduction: of the residual form, E over its hidden width; 4 as in the paper.
        ratio: of the residual form, how much the adapter counts; above 0 and below 1, 0.2 as in the paper.
    """

    form: Literal["attention", "residual"] = "attention"
    reduction: int = 4
    ratio: float = 0.2

    def __post_init__(self) -> None:
        if self.form not in ("attention", "residual"):
            raise ConfigError(f"form is {self.form!r}; it is 'attention' or 'residual'")
        if type(self.reduction) is not int or self.reduction < 1:
            raise ConfigError(f"reduction is {self.reduction!r}; it must be a whole number of at least 1")
        if type(self.ratio) not in (int, float) or not 0 < self.ratio < 1:
            raise ConfigError(f"ratio is {self.ratio!r}; it must be a number above 0 and below 1")


class AttentionAdapter(nn.Module):
    """Weigh the values of (B, E) image features, by weights that depend on the image and have a mean of 1."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(embed_dim, embed_dim)
        self.second = nn.Linear(embed_dim, embed_dim)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, image: Tensor) -> Tensor:
        return image * (image.shape[-1] * self.second(self.first(image).tanh()).softmax(dim=-1))


class ResidualAdapter(nn.Module):
    """Add a bottleneck's output to (B, E) image features."""

    def __init__(self, embed_dim: int, *, reduction: int, ratio: float) -> None:
        super().__init__()
        self.weight = ratio / (1 - ratio)
        self.first = nn.Linear(embed_dim, -(-embed_dim // reduction), bias=False)
        self.second = nn.Linear(self.first.out_features, embed_dim, bias=False)
        nn.init.zeros_(self.second.weight)

    def forward(self, image: Tensor) -> Tensor:
        return image + self.weight * self.second(torch.relu(self.first(image)))


def attach_image_adapter(network: Any, settings: ImageAdapterSettings) -> None:
    """Freeze ``network`` and put an adapter that trains before its comparison with texts, in place.

    Raises:
        ConfigError: its head compares with no texts.
    """
    network.requires_grad_(False)
    head = getattr(network, "head", None)
    if not isinstance(head, CosineHead):
        raise ConfigError("an adapter of image features stands before their comparison with texts; choose a CLIP size")
    embed_dim = head.projection.shape[0]
    if settings.form == "attention":
        head.adapter = AttentionAdapter(embed_dim)
    else:
        head.adapter = ResidualAdapter(embed_dim, reduction=settings.reduction, ratio=settings.ratio)
