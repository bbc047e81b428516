"""A classification head made of texts: CLIP's comparison of an image with one sentence per class."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import TextAnchors
from monai_fedlora.networks.cine_network import CineNetwork
from monai_fedlora.networks.text_reader import TextReader
from monai_fedlora.networks.vit import VisionTransformer


class CosineHead(nn.Module):
    """Map pooled features (B, D) to logits (B, C): the scaled cosines between projected images and texts.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020.
    Nothing of it trains: ``text`` (C, E), ``projection`` (E, D) and ``logit_scale``, a logarithm, are buffers. A new
    head has zeros there, and gives zeros. It computes in float32, also under autocast: cosines are multiplied by up to
    100.

    Args:
        n_classes: C.
        embed_dim: E, length of the vectors that are compared.
        dim: D, width of the image tower.

    Attributes:
        adapter: a module that changes projected images (B, E) before they are compared; None for none.
        reader: what wrote ``text``, for whoever wants to write it anew; no part of the module. None where nobody does.
    """

    text: torch.Tensor
    projection: torch.Tensor
    logit_scale: torch.Tensor
    reader: TextReader | None = None

    def __init__(self, *, n_classes: int, embed_dim: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("text", torch.zeros(n_classes, embed_dim))
        self.register_buffer("projection", torch.zeros(embed_dim, dim))
        self.register_buffer("logit_scale", torch.zeros(()))
        self.adapter: nn.Module | None = None

    @classmethod
    def of(cls, anchors: TextAnchors) -> CosineHead:
        """The head that compares with these texts."""
        (n_classes, embed_dim), dim = anchors.features.shape, anchors.projection.shape[1]
        head = cls(n_classes=n_classes, embed_dim=embed_dim, dim=dim)
        head.text.copy_(anchors.features)
        head.projection.copy_(anchors.projection)
        head.logit_scale.fill_(anchors.logit_scale)
        return head

    def embed(self, pooled: torch.Tensor) -> torch.Tensor:
        """Image features (B, E) of length 1."""
        with full_precision(pooled):
            image = functional.linear(_single(pooled), self.projection)
            return functional.normalize(image if self.adapter is None else self.adapter(image), dim=-1)

    def compare(self, embedded: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of image features (B, E) and texts (C, E), both of length 1."""
        with full_precision(embedded):
            return self.logit_scale.exp() * functional.linear(_single(embedded), _single(text))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.compare(self.embed(pooled), self.text)


def _single(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32. Without a needless conversion, which would tie an exported program to one device."""
    return x if x.dtype == torch.float32 else x.float()


def full_precision(x: torch.Tensor) -> AbstractContextManager[None]:
    """No autocast on the device of ``x``; the device without memory has none, and neither has an exported program."""
    kind = x.device.type
    if torch.compiler.is_exporting() or not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def put_head(network: CineNetwork | VisionTransformer, head: CosineHead) -> None:
    """Replace a network's head by ``head``, in place.

    Raises:
        ConfigError: the network is no vision transformer, or the head reads features of another width, which are those
            of another image tower.
    """
    if not isinstance(network, VisionTransformer):
        raise ConfigError(f"a {type(network).__name__} has two heads, which texts cannot replace; take a CLIP size")
    width = head.projection.shape[1]
    if width != network.settings.dim:
        raise ConfigError(
            f"the texts are compared with image features of width {width}, and this image tower's are "
            f"{network.settings.dim} wide; both towers must come from one checkpoint"
        )
    network.head = head
