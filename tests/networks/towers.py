"""Small image and text towers under the names of OpenCLIP and timm, written for the tests from torch's own layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_fedlora.networks.bert import BertSettings
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from tests.networks.published import randomised

WIDTH, HEADS, LAYERS, PATCH, SIDE, EMBED = 16, 2, 2, 8, 32, 12
CONTEXT, VOCABULARY = 8, 40
SHAPE: dict[str, Any] = {
    "context": CONTEXT,
    "vocabulary": VOCABULARY,
    "dim": WIDTH,
    "depth": LAYERS,
    "n_heads": HEADS,
}
CLIP = TextSettings(**SHAPE, embed_dim=EMBED, activation="gelu")
SIGLIP = TextSettings(
    **SHAPE,
    embed_dim=WIDTH,
    tokens="siglip",
    mlp_ratio=60 / WIDTH,
    activation="gelu_tanh",
    norm_eps=1e-6,
    causal=False,
    projection_bias=True,
    end=1,
)
BERT = BertSettings(**SHAPE, positions=2 * CONTEXT, embed_dim=EMBED, end=3)


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Residual(nn.Module):
    """A block of OpenCLIP's."""

    def __init__(self, width: int, heads: int, activation: nn.Module, *, eps: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", activation), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Stack(nn.Module):
    def __init__(self, activation: Callable[[], nn.Module], *, width: int, heads: int, layers: int, eps: float) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Residual(width, heads, activation(), eps=eps) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class OpenVision(nn.Module):
    """OpenCLIP's own image tower."""

    def __init__(self, activation: Callable[[], nn.Module], *, width: int, heads: int, layers: int, patch: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Stack(activation, width=width, heads=heads, layers=layers, eps=1e-5)
        self.ln_post = nn.LayerNorm(width)

    def finish(self, *, side: int, embed: int) -> OpenVision:
        width = self.class_embedding.shape[0]
        count = (side // self.conv1.kernel_size[0]) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(count, width))
        self.proj = nn.Parameter(torch.randn(width, embed))
        return self

    def pooled(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.pooled(images) @ self.proj


class OpenText(nn.Module):
    """OpenCLIP's own text tower: CLIP's, or SigLIP's with ``siglip``."""

    def __init__(
        self,
        activation: Callable[[], nn.Module],
        *,
        width: int,
        heads: int,
        layers: int,
        embed: int,
        context: int,
        vocabulary: int,
        siglip: bool = False,
    ) -> None:
        super().__init__()
        eps = 1e-6 if siglip else 1e-5
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(context, width))
        self.transformer = Stack(activation, width=width, heads=heads, layers=layers, eps=eps)
        self.ln_final = nn.LayerNorm(width, eps=eps)
        self.siglip = siglip
        if siglip:
            self.text_projection: Any = nn.Linear(width, embed)
        else:
            self.text_projection = nn.Parameter(torch.randn(width, embed))

    def encode_text(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        if self.siglip:
            return self.text_projection(self.ln_final(self.transformer(x))[:, -1])
        mask = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), ids.argmax(dim=-1)] @ self.text_projection


def open_clip(
    activation: Callable[[], nn.Module] = nn.GELU,
    *,
    apart: bool = False,
    width: int = WIDTH,
    heads: int = HEADS,
    layers: int = LAYERS,
    patch: int = PATCH,
    side: int = SIDE,
    embed: int = EMBED,
    text: Mapping[str, int] | None = None,
) -> nn.Module:
    """OpenCLIP's CLIP, its text tower ``apart`` or not; ``text`` changes the text tower."""
    torch.manual_seed(0)
    shape = {"width": width, "heads": heads, "layers": layers, "context": CONTEXT, "vocabulary": VOCABULARY}
    shape |= text or {}
    tower: nn.Module = OpenText(activation, embed=embed, **shape)
    model = nn.Module() if apart else tower
    if apart:
        model.text = tower
    vision = OpenVision(activation, width=width, heads=heads, layers=layers, patch=patch)
    model.visual = vision.finish(side=side, embed=embed)
    model.logit_scale = nn.Parameter(torch.tensor(2.5))
    return randomised(model)


class TimmBlock(nn.Module):
    def __init__(self, width: int, heads: int, *, approximate: str) -> None:
        super().__init__()
        self.heads, self.approximate = heads, approximate
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.Module()
        self.attn.qkv = nn.Linear(width, 3 * width)
        self.attn.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, 4 * width)
        self.mlp.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.attn.qkv(self.norm1(x)).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.attn.proj((weights @ v).transpose(1, 2).reshape(batch, count, width))
        return x + self.mlp.fc2(functional.gelu(self.mlp.fc1(self.norm2(x)), approximate=self.approximate))


class TimmPool(nn.Module):
    """timm's pooling by a latent query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.randn(1, 1, width))
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, 4 * width)
        self.mlp.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q = self.q(self.latent.expand(batch, -1, -1)).view(batch, 1, self.heads, -1).transpose(1, 2)
        k, v = self.kv(x).view(batch, count, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        y = self.proj((weights @ v).transpose(1, 2).reshape(batch, 1, width))
        y = y + self.mlp.fc2(functional.gelu(self.mlp.fc1(self.norm(y)), approximate="tanh"))
        return y[:, 0]


class TimmVision(nn.Module):
    """timm's vision transformer: with a class token, or with a pooling in its place."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        count, gelu = (SIDE // PATCH) ** 2, "tanh" if pooled else "none"
        if not pooled:
            self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, count + (not pooled), WIDTH))
        self.blocks = nn.ModuleList(TimmBlock(WIDTH, HEADS, approximate=gelu) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        if pooled:
            self.attn_pool = TimmPool(WIDTH, HEADS)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        if hasattr(self, "cls_token"):
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.attn_pool(x) if hasattr(self, "attn_pool") else x[:, 0]


def open_clip_around(trunk: nn.Module, text: nn.Module, *, embed: int | None) -> nn.Module:
    """OpenCLIP's model around an image tower of timm's; ``embed`` for a linear projection, None for none."""
    model = nn.Module()
    model.visual = nn.Module()
    model.visual.trunk = trunk
    if embed is not None:
        model.visual.head = nn.Module()
        model.visual.head.proj = nn.Linear(WIDTH, embed, bias=False)
    model.text = text
    model.logit_scale = nn.Parameter(torch.tensor(2.5))
    return randomised(model)


def biomedclip(*, vocabulary: int = VOCABULARY, positions: int = 2 * CONTEXT) -> nn.Module:
    """BiomedCLIP in small: its text tower has transformers' own BERT."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=positions,
    )
    text = nn.Module()
    text.transformer = BertModel(config, add_pooling_layer=False)
    hidden = (WIDTH + EMBED) // 2
    text.proj = nn.Sequential(nn.Linear(WIDTH, hidden, bias=False), nn.GELU(), nn.Linear(hidden, EMBED, bias=False))
    return open_clip_around(TimmVision(), text, embed=EMBED)


def siglip(
    *, vocabulary: int = VOCABULARY, width: int = WIDTH, intermediate: int = 60, context: int = CONTEXT
) -> nn.Module:
    """transformers' SigLIP in small, its MLP's width no multiple of its own."""
    from transformers import SiglipConfig, SiglipModel

    shared = {
        "hidden_size": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    config = SiglipConfig(
        text_config=shared | {"vocab_size": vocabulary, "max_position_embeddings": context},
        vision_config=shared | {"image_size": SIDE, "patch_size": PATCH},
    )
    return randomised(SiglipModel(config))


def open_siglip() -> nn.Module:
    """OpenCLIP's SigLIP in small, with an image tower of timm's."""
    torch.manual_seed(0)
    shape = {"width": WIDTH, "heads": HEADS, "layers": LAYERS, "context": CONTEXT, "vocabulary": VOCABULARY}
    text = OpenText(partial(nn.GELU, "tanh"), embed=WIDTH, siglip=True, **shape)
    return open_clip_around(TimmVision(pooled=True), text, embed=None)


def image_tower(*, seed: int = 5, **changes: Any) -> VisionTransformer:
    """Ours, of the same shape."""
    torch.manual_seed(seed)
    shape = {"image_size": (SIDE, SIDE), "patch": PATCH, "dim": WIDTH, "depth": LAYERS, "n_heads": HEADS}
    return VisionTransformer(ViTSettings(**(shape | changes)), out_chans=2).eval()
