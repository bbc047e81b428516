"""Small networks of all kinds that a researcher may bring, none of which this package knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def monai_vit(**changes: Any) -> nn.Module:
    """MONAI's, which returns a tuple of logits and hidden states."""
    from monai.networks.nets import ViT

    settings = {
        "in_channels": 3,
        "img_size": (16, 16),
        "patch_size": (8, 8),
        "hidden_size": 12,
        "mlp_dim": 24,
        "num_layers": 3,
        "num_heads": 2,
        "classification": True,
        "num_classes": 2,
        "spatial_dims": 2,
        "post_activation": "none",
        "dropout_rate": 0.1,
    }
    return ViT(**{**settings, **changes})


def transformers_vit() -> nn.Module:
    """Of transformers, which returns an object with logits."""
    from transformers import ViTConfig, ViTForImageClassification

    shape = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **shape))  # type: ignore[arg-type]


class TimmAttention(nn.Module):
    """As timm names its layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class TimmBlock(nn.Module):
    """A pre-norm block, whose output may be a tuple as in older versions of transformers."""

    def __init__(self, dim: int, *, in_tuple: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = TimmAttention(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 2 * dim), "fc2": nn.Linear(2 * dim, dim)})
        self.in_tuple = in_tuple

    def forward(self, x: Tensor) -> Any:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))
        return (x, None) if self.in_tuple else x


class TimmVit(nn.Module):
    """A vision transformer with timm's names. The batch's size is read in front of the blocks and used behind them."""

    def __init__(self, *, in_tuple: bool = False) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 8, stride=8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.Sequential(*(TimmBlock(12, in_tuple=in_tuple) for _ in range(3)))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = torch.cat([self.cls_token.expand(batch, -1, -1), self.patch_embed(x).flatten(2).transpose(1, 2)], dim=1)
        for block in self.blocks:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(self.norm(x).reshape(batch, 5, 12)[:, 0])


class OwnCnn(nn.Module):
    """Convolutions with batch normalisation and dropout, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.hidden = nn.Linear(8, 10)
        self.drop = nn.Dropout(0.5)
        self.classifier = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x)).mean(dim=(2, 3))
        return self.classifier(self.drop(functional.relu(self.hidden(x))))


class Skipping(TimmVit):
    """Adds what the first block is given behind the last one, so that blocks do not carry the whole state."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(tokens) + tokens).mean(dim=1))


class Masking(TimmVit):
    """Gives every block a second argument that depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Masked(12) for _ in range(3))  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        mask = tokens.mean(dim=2, keepdim=True)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return self.head(self.norm(tokens).mean(dim=1))


class _Masked(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + mask * self.fc1(x)


@dataclasses.dataclass(frozen=True)
class Own:
    """A network of one's own.

    Attributes:
        build: makes it, without a seed.
        head: dotted name of its head.
        targets: a regular expression of two layers of it.
        blocks: the list of its blocks; None where it has none.
        shape: of an image.
    """

    build: Callable[[], nn.Module]
    head: str
    targets: str
    blocks: str | None = None
    shape: tuple[int, ...] = (3, 16, 16)

    def network(self, seed: int = 0) -> nn.Module:
        """In evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().eval()

    def images(self, count: int = 2, *, seed: int = 1) -> Tensor:
        """Images that it takes."""
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(seed))


OWN = {
    "monai-vit": Own(monai_vit, "classification_head", r"blocks\.[12]\.attn\.qkv", "blocks"),
    "transformers-vit": Own(transformers_vit, "classifier", r"vit\.layers\.[12]\.mlp\.fc1", "vit.layers"),
    "timm-vit": Own(TimmVit, "head", r"blocks\.[12]\.attn\.qkv", "blocks"),
    "timm-vit-tuples": Own(partial(TimmVit, in_tuple=True), "head", r"blocks\.[12]\.attn\.proj", "blocks"),
    "cnn": Own(OwnCnn, "classifier", r"hidden"),
    "cnn-convolutions": Own(OwnCnn, "classifier", r"(stem|body)\.0"),
}
