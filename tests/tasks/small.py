"""A small network that keeps the image's grid, and cases of every task, for federations that take a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SIZE = 8
STRUCTURES = ("LV", "MYO")


class Block(nn.Module):
    """Mixes the channels of every pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.fc(x))


class Pixels(nn.Module):
    """Logits of every pixel (B, classes, H, W), or of the whole image."""

    def __init__(self, outputs: int, *, dense: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.blocks = nn.ModuleList(Block(6) for _ in range(3))
        self.head = nn.Linear(6, outputs)
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        if not self.dense:
            return self.head(tokens.mean(dim=1))
        return self.head(tokens).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


def images_and_masks(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W) and masks (N, H, W) of squares in rings that move about."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    for mask in masks:
        x, y = torch.randint(1, 4, (2,), generator=generator).tolist()
        mask[x - 1 : x + 3, y - 1 : y + 3] = 2
        mask[x : x + 2, y : y + 2] = 1
    noise = 0.1 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    return torch.tensor([0.0, 1.0, -1.0])[masks][:, None] + noise, masks


def targets(task: str, masks: Tensor) -> Any:
    """What a network shall say of the cases of a task."""
    if task == "segmentation":
        return masks
    areas = torch.stack([(masks == 1).flatten(1).sum(1), (masks == 2).flatten(1).sum(1)], dim=1)
    return (areas + torch.arange(len(masks))[:, None] % 3).float()
