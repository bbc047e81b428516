"""A segmentation network on a 2D vision transformer, with the decoder blocks of MONAI's UNETR.

Source: Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation", arXiv 2103.10504. Ours: strides
follow from the patch, and the hidden states are those of evenly spaced blocks whatever the depth.
"""

from __future__ import annotations

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import Features, Taps
from monai_fedlora.networks.cut import checked_block
from monai_fedlora.networks.tracing import fixed_shape
from monai_fedlora.networks.vit import CHANNELS, Embedding, VisionTransformer, ViTSettings

_NORM = "instance"  # of the paper's blocks


def strides(patch: int) -> tuple[int, ...]:
    """The factors by which a decoder enlarges a grid of tokens to the image, the coarsest first.

    Powers of two in steps of 2, and what is left of the patch at once, at the coarsest step: 14 pixels are 7 times 2.

    Raises:
        ConfigError: the patch is a single pixel.
    """
    if patch < 2:
        raise ConfigError(
            f"a decoder enlarges tokens to pixels, and a patch of {patch} pixel leaves nothing to enlarge"
        )
    steps = []
    while patch % 2 == 0:
        steps.append(2)
        patch //= 2
    return (patch, *steps) if patch > 1 else tuple(steps)


class UnetrDecoder(nn.Module):
    """From the image, hidden states and the final tokens to logits per pixel.

    Args:
        dim: width of the transformer.
        patch: height and width of a token in pixels.
        width: channels at full resolution; each coarser stage has twice as many.
        out_chans: channels of the logits.
    """

    def __init__(self, *, dim: int, patch: int, width: int, out_chans: int) -> None:
        from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock  # imports what reads texts

        super().__init__()
        steps = strides(patch)
        chans = [width * 2**level for level in reversed(range(len(steps)))]
        self.image = UnetrBasicBlock(2, CHANNELS, chans[-1], kernel_size=3, stride=1, norm_name=_NORM, res_block=True)
        self.hidden = nn.ModuleList(
            _enlarge(dim, chans[number], steps[: number + 1]) for number in range(len(steps) - 1)
        )
        self.up = nn.ModuleList(
            UnetrUpBlock(2, before, after, 3, upsample_kernel_size=step, norm_name=_NORM, res_block=True)
            for before, after, step in zip([dim, *chans], chans, steps, strict=False)
        )
        self.out = UnetOutBlock(2, chans[-1], out_chans)

    def forward(self, image: torch.Tensor, hidden: list[torch.Tensor], last: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, H, W), maps (B, D, h, w) of the hidden states, the latest first, to (B, C, H, W)."""
        skips = [block(part) for block, part in zip(self.hidden, hidden, strict=True)]
        x = last
        for block, skip in zip(self.up, [*skips, self.image(image)], strict=True):
            x = block(x, skip)
        return self.out(x)


def _enlarge(dim: int, chans: int, steps: tuple[int, ...]) -> nn.Module:
    """Tokens to a finer map; steps may differ, so that a block of MONAI's is made for each run of equal ones."""
    from monai.networks.blocks import UnetrPrUpBlock

    first = UnetrPrUpBlock(
        2, dim, chans, 0, kernel_size=3, stride=1, upsample_kernel_size=steps[0], norm_name=_NORM, res_block=True
    )
    if len(steps) == 1:
        return first
    rest = UnetrPrUpBlock(
        2,
        chans,
        chans,
        len(steps) - 2,
        kernel_size=3,
        stride=1,
        upsample_kernel_size=steps[1],
        norm_name=_NORM,
        conv_block=True,
        res_block=True,
    )
    return nn.Sequential(first, rest)


class _ImageEmbedding(Embedding):
    """An embedding that hands the image on in the addend, in the shape (B, h, w, K) of the grid of tokens."""

    def forward(self, x: torch.Tensor) -> Features:
        tokens, _ = super().forward(x)
        return Features(tokens, x.flatten(1).unflatten(1, (*self.grid_of(fixed_shape(x)[2:]), -1)))


class ViTUNETR(VisionTransformer):
    """A vision transformer whose head is a convolutional decoder.

    Maps colour images (B, 3, H, W) to logits (B, 1, out_chans, H, W). The decoder reads the image, hidden states at
    evenly spaced depths, and the normalised patch tokens of the last block. Between two blocks the image and the
    hidden states that have been passed travel in `Features.addend`.

    Args:
        settings: the transformer's shape.
        out_chans: the background and each structure.
        width: channels at full resolution; the paper's by default.

    Raises:
        ConfigError: as for :class:`~monai_fedlora.networks.vit.VisionTransformer`, or the patch is a single pixel.
    """

    embedding = _ImageEmbedding

    def __init__(self, settings: ViTSettings, *, out_chans: int, width: int = 16) -> None:
        super().__init__(settings, out_chans=out_chans)
        decoder = UnetrDecoder(dim=settings.dim, patch=settings.patch, width=width, out_chans=out_chans)
        self.head = decoder
        count = len(decoder.hidden)
        self.read = tuple(settings.depth * (number + 1) // (count + 1) for number in range(count))
        """Hidden states that the decoder reads, by the number of blocks before them."""

    @property
    def reads_class_token_alone(self) -> bool:
        """Whether the readout ignores all tokens but the class token, which it does not read at all."""
        return False

    def prefix(self, x: torch.Tensor, block: int) -> Features:
        """Embed images and run the blocks before ``block``; hidden states passed on the way join the addend."""
        tokens, addend = self.embed(x)
        parts = [addend]
        for number in range(checked_block(self, block)):
            if number in self.read:
                parts.append(self.patch_tokens(tokens).unflatten(1, tuple(addend.shape[1:3])))
            tokens = self.blocks[number](tokens)
        return Features(tokens, torch.cat(parts, dim=3))

    def suffix(self, features: Features, block: int) -> torch.Tensor:
        """Run the blocks from ``block`` on and decode; ``suffix(prefix(x, i), i)`` equals the network."""
        first = checked_block(self, block)
        tokens, addend = features
        parts = [addend]
        for number in range(first, len(self.blocks)):
            if number in self.read:
                parts.append(self.patch_tokens(tokens).unflatten(1, tuple(addend.shape[1:3])))
            tokens = self.blocks[number](tokens)
        return self.readout(Features(tokens, torch.cat(parts, dim=3)))

    @torch.no_grad()
    def taps(self, x: torch.Tensor) -> Taps:
        """The inputs of all blocks, without an autograd graph; the addend is that before the last block."""
        hidden = tuple(self.prefix(x, number).tokens for number in range(len(self.blocks)))
        return Taps(hidden, self.prefix(x, len(self.blocks) - 1).addend)

    def readout(self, features: Features) -> torch.Tensor:
        """Turn the last block's output, and an addend with all hidden states, into logits (B, 1, out_chans, H, W)."""
        patch, dim = self.settings.patch, self.settings.dim
        height, width = grid = features.addend.shape[1:3]
        image, *states = features.addend.split([CHANNELS * patch**2, *[dim] * len(self.read)], dim=3)
        image = image.flatten(1).unflatten(1, (CHANNELS, height * patch, width * patch))
        hidden = [state.permute(0, 3, 1, 2) for state in reversed(states)]
        last = self.norm(self.patch_tokens(features.tokens)).transpose(1, 2).unflatten(2, tuple(grid))
        logits: torch.Tensor = self.head(image, hidden, last)
        return logits.unsqueeze(1)
