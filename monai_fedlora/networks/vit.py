"""The vision transformer of all published 2D families, in plain torch, under parameter names of our own.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; the pre-normalised embedding and the
quick GELU of CLIP (Radford et al., arXiv 2103.00020); the layer scale of DINOv2 (Oquab et al., arXiv 2304.07193); the
normalised mean of the patch tokens of MAE (He et al., arXiv 2111.06377) and RETFound (Zhou et al., Nature 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.attention import dot_product_attention
from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.cut import CutNetwork
from monai_fedlora.networks.one_query import attend
from monai_fedlora.networks.position import resize_image_position, sincos_position
from monai_fedlora.networks.tracing import fixed_shape

CHANNELS = 3

Activation = Literal["gelu", "quick_gelu"]
Readout = Literal["cls", "mean"]
Size2 = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTSettings:
    """The shape of a vision transformer.

    Attributes:
        image_size: H, W in pixels.
        patch: height and width of a token in pixels.
        dim: width of the transformer, a multiple of ``n_heads``.
        depth: number of blocks.
        n_heads: attention heads.
        mlp_ratio: hidden width of the MLP over ``dim``.
        activation: of the MLP; ``"quick_gelu"`` is x times the sigmoid of 1.702 x.
        norm_eps: added to the variance in every layer norm.
        qkv_bias: whether queries, keys and values have biases.
        patch_bias: whether the patch embedding has one.
        pre_norm: a layer norm between the embedding and the first block.
        layer_scale: a learned factor per channel on the output of every attention and MLP.
        readout: ``"cls"`` normalises the class token, ``"mean"`` the mean of the patch tokens.
    """

    image_size: Size2
    patch: int
    dim: int
    depth: int
    n_heads: int
    mlp_ratio: int = 4
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    patch_bias: bool = True
    pre_norm: bool = False
    layer_scale: bool = False
    readout: Readout = "cls"

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or any(size < 1 for size in self.image_size):
            raise ConfigError(f"image_size must be two positive numbers (height, width), not {self.image_size}")
        for name in ("patch", "depth", "n_heads", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.dim < 4 or self.dim % self.n_heads:
            raise ConfigError(f"dim {self.dim} must be at least 4 and a multiple of n_heads {self.n_heads}")
        for name, known in (("activation", Activation), ("readout", Readout)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(get_args(known))}"
                )


class BlockSettings(Protocol):
    """What a block reads of its network's settings; see :class:`ViTSettings`."""

    @property
    def dim(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def mlp_ratio(self) -> int: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def norm_eps(self) -> float: ...
    @property
    def qkv_bias(self) -> bool: ...
    @property
    def layer_scale(self) -> bool: ...


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gelu": functional.gelu, "quick_gelu": _quick_gelu}


class Embedding(nn.Module):
    """From images (B, 3, H, W) to the input of block 0: a class token and one token per patch, row by row."""

    def __init__(self, settings: ViTSettings) -> None:
        super().__init__()
        self.patch_size = settings.patch
        self.grid = self.grid_of(settings.image_size)
        self.patch = nn.Conv2d(CHANNELS, settings.dim, settings.patch, stride=settings.patch, bias=settings.patch_bias)
        self.cls = nn.Parameter(torch.zeros(1, 1, settings.dim))
        height, width = self.grid
        self.position = nn.Parameter(sincos_position(settings.dim, (width, height)).unsqueeze(0))
        self.norm = nn.LayerNorm(settings.dim, eps=settings.norm_eps) if settings.pre_norm else nn.Identity()

    def grid_of(self, image_size: Sequence[int]) -> Size2:
        """The number of tokens along the height and the width of an image.

        Raises:
            ConfigError: a side is no multiple of the patch.
        """
        height, width = image_size
        if height < 1 or width < 1 or height % self.patch_size or width % self.patch_size:
            raise ConfigError(
                f"the image size {(height, width)} is no multiple of the patch, {self.patch_size} pixels; "
                "resize the images to one"
            )
        return height // self.patch_size, width // self.patch_size

    def patches(self, x: torch.Tensor) -> torch.Tensor:
        """Patch tokens (B, N, D) with their positions, which are interpolated for another image size."""
        shape = fixed_shape(x)
        if len(shape) != 4 or shape[1] != CHANNELS:
            raise ConfigError(f"expected images (B, {CHANNELS}, H, W), not {shape}")
        grid = self.grid_of(shape[2:])
        position = self.position if grid == self.grid else resize_image_position(self.position, self.grid, grid)
        return self.patch(x).flatten(2).transpose(1, 2) + position

    def prepend(self, tokens: torch.Tensor) -> torch.Tensor:
        """Put the class token in front: (B, N, D) to (B, 1 + N, D), normalised where the family does so."""
        return self.norm(torch.cat([self.cls.expand(tokens.shape[0], -1, -1), tokens], dim=1))

    def forward(self, x: torch.Tensor) -> Features:
        tokens = self.prepend(self.patches(x))
        return Features(tokens, tokens[:, :0])


class Attention(nn.Module):
    """Multi-head self-attention on (B, N, D), with queries, keys and values projected apart.

    With a number of ``queries``, only that many first tokens ask, and the output is (B, queries, D).

    Args:
        settings: the network's.
        causal: whether a token sees only itself and those before it.
    """

    def __init__(self, settings: BlockSettings, *, causal: bool = False) -> None:
        super().__init__()
        self.n_heads = settings.n_heads
        self.causal = causal
        self.q = nn.Linear(settings.dim, settings.dim, bias=settings.qkv_bias)
        self.k = nn.Linear(settings.dim, settings.dim, bias=settings.qkv_bias)
        self.v = nn.Linear(settings.dim, settings.dim, bias=settings.qkv_bias)
        self.proj = nn.Linear(settings.dim, settings.dim)

    def forward(self, x: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        if queries == 1 and not self.causal:
            query = self.q(x[:, :1].contiguous()).squeeze(1)
            return self.proj(attend(x, query, self.k, self.v, n_heads=self.n_heads)).unsqueeze(1)
        # Contiguous, because PyTorch rounds a strided input otherwise where the weight trains than where it does not.
        query, key, value = (
            part.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for part in (self.q(x[:, :queries].contiguous()), self.k(x), self.v(x))
        )
        out = dot_product_attention(query, key, value, causal=self.causal)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.fc1 = nn.Linear(settings.dim, settings.dim * settings.mlp_ratio)
        self.fc2 = nn.Linear(settings.dim * settings.mlp_ratio, settings.dim)
        self.activation = _ACTIVATIONS[settings.activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


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
        causal: whether a token sees only itself and those before it.
    """

    def __init__(self, settings: BlockSettings, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.attn = Attention(settings, causal=causal)
        self.ls1 = LayerScale(settings.dim) if settings.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.mlp = Mlp(settings)
        self.ls2 = LayerScale(settings.dim) if settings.layer_scale else nn.Identity()

    def forward(self, x: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        x = x[:, :queries] + self.ls1(self.attn(self.norm1(x), queries))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(CutNetwork):
    """A patch embedding, transformer blocks, a norm and a head, linear unless another one is put in its place.

    Maps colour images (B, 3, H, W) to logits (B, out_chans). Images of another size than the settings' work as long
    as both sides are multiples of the patch.

    A new network has sine-cosine positions, Xavier-uniform linear layers with zero biases and a head drawn with a
    standard deviation of 0.02 (He et al., arXiv 2111.06377, except for the positions, which train here).

    Args:
        settings: the shape.
        out_chans: classes.

    Raises:
        ConfigError: the image size does not fit the patch, or there are no classes.
    """

    head_prefixes: tuple[str, ...] = ("head.",)
    embedding: type[Embedding] = Embedding
    target_names: Mapping[str, str] = {
        "q": "attn.q",
        "k": "attn.k",
        "v": "attn.v",
        "proj": "attn.proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    }

    def __init__(self, settings: ViTSettings, *, out_chans: int) -> None:
        super().__init__()
        if out_chans < 1:
            raise ConfigError(f"out_chans must be at least 1, not {out_chans}")
        self.settings = settings
        self.embed = self.embedding(settings)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        head = nn.Linear(settings.dim, out_chans)
        self.head: nn.Module = head
        self.apply(_initialise)
        nn.init.normal_(self.embed.cls, std=0.02)
        nn.init.normal_(head.weight, std=0.02)

    @property
    def reads_class_token_alone(self) -> bool:
        """Whether the readout ignores all tokens but the class token."""
        return self.settings.readout == "cls"

    def block_name(self, block: int) -> str:
        """The dotted module path of a block."""
        return f"blocks.{block}"

    def pool(self, features: Features) -> torch.Tensor:
        """One normalised feature vector (B, D) per image from the output of the last block."""
        tokens = features.tokens
        return self.norm(tokens[:, 0] if self.settings.readout == "cls" else tokens[:, 1:].mean(dim=1))

    def readout(self, features: Features) -> torch.Tensor:
        """Turn the last block's output into logits (B, out_chans)."""
        return self.head(self.pool(features))


def _initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases; a patch embedding is the linear layer that it equals."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
