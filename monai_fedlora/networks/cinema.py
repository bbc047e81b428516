"""CineMA's ConvViT classifier for short-axis cine CMR, in plain torch.

Source: Fu et al., "CineMA: A foundation model for cine cardiac magnetic resonance", arXiv 2506.00679. The
state-dict keys are those of the released weights, restricted to the short-axis view ``sax``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.cine_network import VIEW, CineNetwork, check_counts, check_heads
from monai_fedlora.networks.conv_stem import Fusion, Size3
from monai_fedlora.networks.convunetr import ConvUNetR
from monai_fedlora.networks.transformer import Encoder, init_linear
from monai_fedlora.networks.up_decoder import RELEASED_DECODER, DecoderSettings

Readout = Literal["cls_patch", "patch", "cls"]


class ConvViT(CineNetwork):
    """A convolutional stem, a transformer, a multi-scale fusion and linear heads.

    Maps (B, n_frames, X, Y, Z) to logits (B, out_chans). Images of another size than ``image_size`` work as
    long as every axis is a multiple of the token's size.

    Args:
        image_size: X, Y, Z in voxels.
        n_frames: frames of the cine on the channel axis, end-diastole first.
        out_chans: classes.
        patch_size: stride of the first stage along x, y, z.
        scale_factor: stride of every later stage and of the final patches.
        conv_chans: channels of each convolutional stage.
        conv_n_blocks: blocks in each stage.
        embed_dim: width of the transformer.
        depth: number of transformer blocks.
        n_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: hidden width of every MLP over its input width.
        readout: ``"cls_patch"`` averages the logits of the mean patch token and of the class token;
            ``"patch"`` and ``"cls"`` use one of them.

    Raises:
        ConfigError: the sizes contradict each other.
    """

    head_prefixes: tuple[str, ...] = ("pred_head_dict.",)

    def __init__(
        self,
        *,
        image_size: Sequence[int],
        n_frames: int,
        out_chans: int,
        patch_size: Sequence[int],
        scale_factor: Sequence[int],
        conv_chans: Sequence[int],
        conv_n_blocks: int,
        embed_dim: int,
        depth: int,
        n_heads: int,
        mlp_ratio: int = 4,
        readout: Readout = "cls_patch",
    ) -> None:
        super().__init__(
            image_size=image_size,
            n_frames=n_frames,
            patch_size=patch_size,
            scale_factor=scale_factor,
            conv_chans=conv_chans,
        )
        check_counts(out_chans=out_chans, depth=depth, n_heads=n_heads, mlp_ratio=mlp_ratio)
        check_heads(embed_dim, n_heads)
        if readout not in get_args(Readout):
            raise ConfigError(f"readout {readout!r} is unknown; choose one of {', '.join(get_args(Readout))}")

        self.readout_mode = readout
        self.enc_down_dict = self.new_stem(
            conv_chans=conv_chans, conv_n_blocks=conv_n_blocks, dim=embed_dim, mlp_ratio=mlp_ratio
        )
        fusion = Fusion(patch_sizes=self.patch_sizes, conv_chans=conv_chans, dim=embed_dim)
        self.enc_fusion_dict = nn.ModuleDict({VIEW: fusion})
        self.encoder = Encoder(dim=embed_dim, depth=depth, n_heads=n_heads, mlp_ratio=mlp_ratio)
        self.apply(init_linear)
        nn.init.normal_(self.encoder.cls_token, std=0.02)
        self.pred_head_dict = nn.ModuleDict({name: nn.Linear(embed_dim, out_chans) for name in (VIEW, "cls")})

    @property
    def fusion(self) -> Fusion:
        """From the encoder's patch tokens and the stem's maps to fused patch tokens."""
        return cast(Fusion, self.enc_fusion_dict[VIEW])

    @property
    def reads_class_token_alone(self) -> bool:
        """Whether the readout ignores all tokens but the class token."""
        return self.readout_mode == "cls"

    def embed(self, x: torch.Tensor) -> Features:
        """Turn images (B, n_frames, X, Y, Z) into the input of block 0 and the fusion's addend."""
        tokens, skips = self.stem(x, self.grid_of(x))
        return Features(self.encoder.prepend(tokens), self.fusion.addend(skips))

    def readout(self, features: Features) -> torch.Tensor:
        """Turn the last block's output into logits (B, out_chans)."""
        tokens = self.encoder.norm(features.tokens)
        logits = []
        if self.readout_mode != "cls":
            patches = self.fusion(tokens[:, 1:], features.addend)
            logits.append(self.pred_head_dict[VIEW](patches.mean(dim=1)))
        if self.readout_mode != "patch":
            logits.append(self.pred_head_dict["cls"](tokens[:, 0]))
        return sum(logits[1:], start=logits[0]) / len(logits)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConvViTSize:
    """A named set of sizes.

    Attributes:
        image_size: X, Y, Z in voxels.
        spacing: of a voxel along x, y, z, in mm, for the preprocessing in front of the network.
        decoder: of the segmentation network.
    """

    image_size: Size3
    spacing: tuple[float, float, float]
    patch_size: Size3
    scale_factor: Size3
    conv_chans: tuple[int, ...]
    conv_n_blocks: int
    embed_dim: int
    depth: int
    n_heads: int
    decoder: DecoderSettings = RELEASED_DECODER


_BASE = ConvViTSize(
    image_size=(192, 192, 16),
    spacing=(1.0, 1.0, 10.0),
    patch_size=(4, 4, 1),
    scale_factor=(2, 2, 1),
    conv_chans=(64, 128),
    conv_n_blocks=2,
    embed_dim=768,
    depth=12,
    n_heads=12,
)

_SMALL = ConvViTSize(
    image_size=(48, 48, 8),
    spacing=(3.3, 3.3, 10.0),
    patch_size=(2, 2, 1),
    scale_factor=(2, 2, 1),
    conv_chans=(16, 32),
    conv_n_blocks=2,
    embed_dim=96,
    depth=4,
    n_heads=4,
    decoder=DecoderSettings(chans=(16, 32, 64), kernel_size=(3, 3, 1)),
)

SIZES: dict[str, ConvViTSize] = {
    "tiny": dataclasses.replace(_BASE, embed_dim=16, depth=1, n_heads=2),
    # (ours) small enough to train on a laptop's CPU; the same field of view in coarser voxels.
    "small": _SMALL,
    # (ours) the same on stacks of 120 mm, which hold hearts from above the base to below the apex.
    "tall": dataclasses.replace(_SMALL, image_size=(48, 48, 12)),
    # (ours) the same for outlines of 2 mm; kernels within a slice take half the time of those across slices.
    "fine": ConvViTSize(
        image_size=(96, 96, 10),
        spacing=(2.0, 2.0, 10.0),
        patch_size=(4, 4, 1),
        scale_factor=(2, 2, 1),
        conv_chans=(24, 48),
        conv_n_blocks=2,
        embed_dim=96,
        depth=4,
        n_heads=4,
        decoder=DecoderSettings(chans=(8, 16, 32, 64), kernel_size=(3, 3, 1)),
    ),
    "base": _BASE,
    "large": dataclasses.replace(_BASE, embed_dim=1024, depth=24, n_heads=16),
}


def convvit(size: str, *, out_chans: int, n_frames: int = 2, image_size: Sequence[int] | None = None) -> ConvViT:
    """Build a :class:`ConvViT` of a named size, randomly initialised.

    Args:
        size: a key of :data:`SIZES`.
        out_chans: classes.
        n_frames: frames on the channel axis.
        image_size: X, Y, Z in voxels; None for the size's own.

    Raises:
        ConfigError: the size is unknown or the image size does not fit it.
    """
    settings = _settings(size, image_size)
    return ConvViT(**settings, n_frames=n_frames, out_chans=out_chans)


def convunetr(
    size: str,
    *,
    out_chans: int,
    n_frames: int = 2,
    image_size: Sequence[int] | None = None,
    skip_drop: float = 0.0,
) -> ConvUNetR:
    """Build a :class:`~monai_fedlora.networks.convunetr.ConvUNetR` of a named size, randomly initialised.

    Args:
        size: a key of :data:`SIZES`.
        out_chans: channels per frame: the background and each structure.
        n_frames: frames on the channel axis.
        image_size: X, Y, Z in voxels; None for the size's own.
        skip_drop: see :class:`~monai_fedlora.networks.convunetr.ConvUNetR`.

    Raises:
        ConfigError: the size is unknown or the image size does not fit it.
    """
    settings = _settings(size, image_size)
    decoder = SIZES[size].decoder
    return ConvUNetR(**settings, n_frames=n_frames, out_chans=out_chans, decoder=decoder, skip_drop=skip_drop)


def _settings(size: str, image_size: Sequence[int] | None) -> dict[str, Any]:
    """What both networks of a size are built with."""
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}; choose one of {', '.join(SIZES)}")
    settings = {field.name: getattr(SIZES[size], field.name) for field in dataclasses.fields(ConvViTSize)}
    del settings["spacing"], settings["decoder"]
    if image_size is not None:
        settings["image_size"] = image_size
    return settings
