"""Random changes of pictures and of the maps of their pixels together, for batches, in plain torch.

The images are those of a pre-training on phantoms, whose levels lie in [0, 1]; `photograph_augmentation` is for cases.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_fedlora.transforms.pair_augmentation import moved_in_plane, uniform


def change_pictures(image: Tensor, maps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn, mirror, shift and bend, mirrored at the edges; then change brightness, gamma, colours and noise (ours).

    Args:
        image: (B, 3, H, W) float32 in [0, 1], H and W equal.
        maps: (B, K, H, W) float32 in [0, 1], moved with the image.
        generator: of everything random, on the CPU.

    Returns:
        Both of the same shapes and ranges.
    """
    moved = moved_in_plane(torch.cat([image, maps], 1), generator, padding="reflection").clamp(0, 1)
    return _colours(moved[:, :3], generator), moved[:, 3:].contiguous()


def _colours(image: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, saturation, brightness and balance of the channels, and noise in half of the pictures."""
    batch, one = len(image), (len(image), 1, 1, 1)
    image = image ** uniform(generator, -0.25, 0.25, *one).exp()
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * uniform(generator, 0.7, 1.3, *one)
    image = image * uniform(generator, -0.25, 0.2, *one).exp() * uniform(generator, -0.08, 0.08, batch, 3, 1, 1).exp()
    noise = torch.randn(image.shape, generator=generator) * uniform(generator, 0, 0.03, *one)
    return (image + noise * (torch.rand(one, generator=generator) < 0.5)).clamp(0, 1)
