"""Small networks of one's own, and small images that they can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import monai_fedlora as fl
from monai_fedlora.api.site_data import SiteData

LORA = fl.method("dual_lora", rank=2, targets=r"blocks\..*", head="head")
SETTINGS: dict[str, Any] = {"rounds": 2, "batch_size": 4, "warmup_epochs": 0}


class Small(nn.Module):
    """Three layers over images (B, 1, 4, 4); says its logits in a dictionary."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 8)
        self.blocks = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.blocks(self.embed(x.flatten(1)).tanh()).relu()
        return {"logits": self.head(hidden), "hidden": hidden}


def images(count: int, seed: int, classes: int = 2, size: tuple[int, ...] = (1, 4, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Noise that is brighter in the higher classes, and its labels."""
    labels = np.arange(count) % classes
    noise = np.random.default_rng(seed).normal(size=(count, *size)).astype("float32")
    return noise + labels.reshape(-1, *(1 for _ in size)).astype("float32"), labels


def two_sites(**changes: Any) -> dict[str, SiteData]:
    """Sites with a few cases, all parts and two images of each subject."""
    found = {}
    for place, name in enumerate(("north", "south")):
        parts = {
            part: (*images(8, 3 * place + number), [f"{part}-{i // 2}" for i in range(8)])
            for number, part in enumerate(("train", "validation", "test"))
        }
        found[name] = SiteData(**{**parts, **changes})
    return found


@pytest.fixture(scope="session")
def in_memory() -> fl.Run:
    """A finished run of two sites that is kept in memory alone."""
    return fl.federate(Small, LORA, two_sites(images="synthetic"), **SETTINGS)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
