"""Random changes of cine pairs and of the shares of their voxels together, for batches, in plain torch.

A phantom is dear to draw and cheap to look at again: each is shown a few times, every time turned, shifted and bent in
the image plane, and with other grey levels. Sizes stay as they are, so that what was measured on a heart stays true.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_SHIFT = 0.12  # largest shift along an axis, share of half the field of view
_BEND = 0.03  # standard deviation of the bending at its nodes, same unit
_NODES = 5  # nodes of the bending along an axis


def augment_pairs(image: Tensor, shares: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn, mirror, shift and bend in plane; then change grey levels (ranges ours).

    Args:
        image: (B, F, X, Y, Z) float32 in [0, 1], X and Y equal.
        shares: (B, S, X, Y, Z) float32 in [0, 1], moved with the image.
        generator: of everything random, on the CPU.

    Returns:
        Both of the same shapes and ranges.
    """
    frames, slices = image.shape[1], image.shape[-1]
    both = torch.cat([image, shares], dim=1).permute(0, 1, 4, 2, 3).flatten(1, 2)
    moved = moved_in_plane(both, generator)
    moved = moved.unflatten(1, (-1, slices)).permute(0, 1, 3, 4, 2)
    return _grey_levels(moved[:, :frames], generator), moved[:, frames:].contiguous()


def moved_in_plane(planes: Tensor, generator: torch.Generator, *, padding: str = "zeros") -> Tensor:
    """Turn, mirror, shift and bend the planes of each image together.

    Args:
        planes: (B, C, X, Y) float32, X and Y equal.
        generator: of everything random, on the CPU.
        padding: what lies beyond the edges, as ``torch.nn.functional.grid_sample`` calls it.

    Returns:
        (B, C, X, Y).
    """
    grid = _places(len(planes), planes.shape[2], generator).to(planes.device)
    return functional.grid_sample(planes, grid, align_corners=False, padding_mode=padding)


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Random numbers between ``low`` and ``high`` of a shape."""
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _places(batch: int, size: int, generator: torch.Generator) -> Tensor:
    """Where each pixel is read, (B, X, Y, 2) in the units of ``grid_sample``."""
    angle = uniform(generator, -math.pi, math.pi, batch)
    mirror = 1 - 2 * (torch.rand(batch, generator=generator) < 0.5).float()
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos * mirror, -sin], 1), torch.stack([sin * mirror, cos], 1)], 1)
    shift = uniform(generator, -_SHIFT, _SHIFT, batch, 2, 1)
    places = functional.affine_grid(torch.cat([turn, shift], 2), [batch, 1, size, size], align_corners=False)
    nodes = torch.randn(batch, 2, _NODES, _NODES, generator=generator) * _BEND
    bend = functional.interpolate(nodes, size=(size, size), mode="bicubic", align_corners=True)
    return places + bend.permute(0, 2, 3, 1)


def _grey_levels(image: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, a smooth gain, another gain for each slice, noise, and the range that the levels are cut to."""
    batch, _, size, _, slices = image.shape
    one = (batch, 1, 1, 1, 1)
    device = image.device
    image = image.clamp(0, 1) ** uniform(generator, -0.5, 0.5, *one).exp().to(device)
    nodes = torch.randn(batch, 1, 3, 3, generator=generator) * 0.2
    gain = functional.interpolate(nodes, size=(size, size), mode="bicubic", align_corners=True).exp()[..., None]
    gain = gain * (1 + 0.06 * torch.randn(batch, 1, 1, 1, slices, generator=generator))
    noise = torch.randn(image.shape, generator=generator) * uniform(generator, 0, 0.06, *one)
    return (image * gain.to(device) + (noise * (torch.rand(one, generator=generator) < 0.5)).to(device)).clamp(0, 1)
