"""The vision transformer of all published 2D families, in plain torch, under parameter names of our own.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; the pre-normalised embedding of CLIP
(Radford et al., arXiv 2103.00020); registers (Darcet et al., arXiv 2309.16588); the normalised mean of the patch tokens
of MAE (He et al., arXiv 2111.06377) and RETFound (Zhou et al., Nature 2023). Blocks are in
:mod:`monai_fedlora.networks.vit_block`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.attention_pool import AttentionPool
from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.cut import CutNetwork
from monai_fedlora.networks.position import Resizing, resize_image_position, sincos_position
from monai_fedlora.networks.rotary import Rotary
from monai_fedlora.networks.tracing import fixed_shape
from monai_fedlora.networks.vit_block import Activation, Block

CHANNELS = 3

Positions = Literal["learned", "rotary"]
Readout = Literal["cls", "mean", "mean_of_norm", "map"]
_WORDS = (("activation", Activation), ("positions", Positions), ("resizing", Resizing), ("readout", Readout))
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
        mlp_ratio: hidden width of the MLP over ``dim``, rounded to a whole number of channels.
        gated: whether the MLP is gated by a SiLU (SwiGLU), in place of ``activation``.
        activation: of the MLP; ``"gelu_tanh"`` approximates GELU by tanh, ``"quick_gelu"`` is x times the sigmoid of
            1.702 x.
        norm_eps: added to the variance in every layer norm.
        qkv_bias: whether queries, keys and values have biases.
        key_bias: whether keys have one, where queries and values do.
        patch_bias: whether the patch embedding has one.
        pre_norm: a layer norm between the embedding and the first block.
        layer_scale: a learned factor per channel on the output of every attention and MLP.
        class_token: whether there is one, first of all tokens.
        registers: number of tokens between it and the patches that belong to no place and that no readout reads.
        positions: ``"learned"`` ones are added to the patch tokens; ``"rotary"`` ones turn queries and keys in every
            block, see :class:`~monai_fedlora.networks.rotary.Rotary`.
        resizing: how learned positions are interpolated, unless the names in the file that they come from tell; see
            :data:`monai_fedlora.networks.position.Resizing`.
        readout: ``"cls"`` normalises the class token, ``"mean"`` the mean of the patch tokens; ``"mean_of_norm"`` takes
            the mean of the normalised patch tokens; ``"map"`` reads all normalised tokens by a learned query.
    """

    image_size: Size2
    patch: int
    dim: int
    depth: int
    n_heads: int
    mlp_ratio: float = 4
    gated: bool = False
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    key_bias: bool = True
    patch_bias: bool = True
    pre_norm: bool = False
    layer_scale: bool = False
    class_token: bool = True
    registers: int = 0
    positions: Positions = "learned"
    resizing: Resizing = "smoothed"
    readout: Readout = "cls"

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or any(size < 1 for size in self.image_size):
            raise ConfigError(f"image_size must be two positive numbers (height, width), not {self.image_size}")
        for name, least in (("patch", 1), ("depth", 1), ("n_heads", 1), ("mlp_width", 1), ("registers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.dim < 4 or self.dim % self.n_heads:
            raise ConfigError(f"dim {self.dim} must be at least 4 and a multiple of n_heads {self.n_heads}")
        for name, known in _WORDS:
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(get_args(known))}"
                )
        if self.readout == "cls" and not self.class_token:
            raise ConfigError("without a class token the readout must be mean, mean_of_norm or map")

    @property
    def mlp_width(self) -> int:
        """The hidden width of the MLP."""
        return round(self.dim * self.mlp_ratio)

    @property
    def n_prefix(self) -> int:
        """The number of tokens before those of the patches."""
        return int(self.class_token) + self.registers


class Embedding(nn.Module):
    """From images (B, 3, H, W) to the input of block 0: class token, registers and one token per patch, row by row."""

    def __init__(self, settings: ViTSettings) -> None:
        super().__init__()
        self.patch_size = settings.patch
        self.resizing = settings.resizing
        self.grid = self.grid_of(settings.image_size)
        self.patch = nn.Conv2d(CHANNELS, settings.dim, settings.patch, stride=settings.patch, bias=settings.patch_bias)
        self.cls = nn.Parameter(torch.zeros(1, 1, settings.dim)) if settings.class_token else None
        self.registers = nn.Parameter(torch.zeros(1, settings.registers, settings.dim)) if settings.registers else None
        height, width = self.grid
        table = sincos_position(settings.dim, (width, height)).unsqueeze(0)
        self.position = nn.Parameter(table) if settings.positions == "learned" else None
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
        """Patch tokens (B, N, D) with learned positions, which are interpolated for another image size."""
        shape = fixed_shape(x)
        if len(shape) != 4 or shape[1] != CHANNELS:
            raise ConfigError(f"expected images (B, {CHANNELS}, H, W), not {shape}")
        grid = self.grid_of(shape[2:])
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        if self.position is None:
            self._check_grid(grid)
            return tokens
        if grid == self.grid:
            return tokens + self.position
        return tokens + resize_image_position(self.position, self.grid, grid, resizing=self.resizing)

    def _check_grid(self, grid: Size2) -> None:
        """Refuse images for whose patches there are no rotary positions."""
        if grid != self.grid:
            (height, width), (rows, columns) = self.grid, grid
            raise ConfigError(
                f"the images have {rows} x {columns} patches, and the rotary positions are of {height} x {width}; "
                "build the network for the size of the images (NAME-PIXELS)"
            )

    def prepend(self, tokens: torch.Tensor) -> torch.Tensor:
        """Put class token and registers in front, (B, N, D) to (B, P + N, D), and normalise where a family does."""
        front = [part.expand(tokens.shape[0], -1, -1) for part in (self.cls, self.registers) if part is not None]
        return self.norm(torch.cat([*front, tokens], dim=1))

    def forward(self, x: torch.Tensor) -> Features:
        tokens = self.prepend(self.patches(x))
        return Features(tokens, tokens[:, :0])


class VisionTransformer(CutNetwork):
    """A patch embedding, transformer blocks, a norm and a head, linear unless another one is put in its place.

    Maps colour images (B, 3, H, W) to logits (B, out_chans). Images of another size than the settings' work as long
    as both sides are multiples of the patch, unless positions are rotary.

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
        rotary = self._rotary() if settings.positions == "rotary" else None
        self.blocks = nn.ModuleList(Block(settings, rotary=rotary) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.attention_pool = AttentionPool(settings) if settings.readout == "map" else None
        head = nn.Linear(settings.dim, out_chans)
        self.head: nn.Module = head
        self.apply(_initialise)
        for part in (self.embed.cls, self.embed.registers):
            if part is not None:
                nn.init.normal_(part, std=0.02)
        nn.init.normal_(head.weight, std=0.02)

    def _rotary(self) -> Rotary:
        """The positions that all blocks share."""
        settings = self.settings
        return Rotary(grid=self.embed.grid, n_prefix=settings.n_prefix, head_dim=settings.dim // settings.n_heads)

    @property
    def reads_class_token_alone(self) -> bool:
        """Whether the readout ignores all tokens but the class token."""
        return self.settings.readout == "cls"

    def block_name(self, block: int) -> str:
        """The dotted module path of a block."""
        return f"blocks.{block}"

    def pool(self, features: Features) -> torch.Tensor:
        """One feature vector (B, D) per image from the output of the last block."""
        tokens = features.tokens
        if self.settings.readout == "cls":
            return self.norm(tokens[:, 0])
        if self.attention_pool is not None:
            return self.attention_pool(self.norm(tokens))
        patches = self.patch_tokens(tokens)
        return self.norm(patches.mean(dim=1)) if self.settings.readout == "mean" else self.norm(patches).mean(dim=1)

    def patch_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens (B, N, D) of the patches, row by row, among all (B, P + N, D)."""
        return tokens[:, self.settings.n_prefix :]

    def readout(self, features: Features) -> torch.Tensor:
        """Turn the last block's output into logits (B, out_chans)."""
        return self.head(self.pool(features))


def _initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases; a patch embedding is the linear layer that it equals."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
