from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from monai_fedlora.engines.dataset import case_loader
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.trainer import CaseTrainer


class Layer(nn.Module):
    """A linear layer with an adapter, laid out as PEFT lays it out."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.base_layer = nn.Linear(width, width)
        self.lora_dropout = nn.ModuleDict({"shared": nn.Dropout(dropout), "private": nn.Dropout(dropout)})
        self.lora_A = nn.ModuleDict({name: nn.Linear(width, 2, bias=False) for name in ("shared", "private")})
        self.lora_B = nn.ModuleDict({name: nn.Linear(2, width, bias=False) for name in ("shared", "private")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adapted = [self.lora_B[n](self.lora_A[n](self.lora_dropout[n](x))) for n in ("shared", "private")]
        return self.base_layer(x) + adapted[0] + adapted[1]


class Network(nn.Module):
    """A frozen block with dropout and batch norm, an adapted layer in it, and a head that trains."""

    def __init__(self, dropout: float = 0.5, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.layer = Layer(6, dropout)
        self.head = nn.Sequential(nn.LayerNorm(6), nn.Dropout(dropout), nn.Linear(6, classes))
        self.requires_grad_(False)
        for part in (self.layer.lora_A, self.layer.lora_B, self.head):
            part.requires_grad_(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.stem(x)))


class Cases(Dataset):
    """Labelled vectors as tiny images."""

    def __init__(self, n: int, classes: int = 2) -> None:
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randn(n, 2, 2, 2, generator=generator)
        self.n, self.classes = n, classes

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "label": i % self.classes, "subject": f"patient{i:03d}"}


@pytest.fixture
def make_network() -> Callable[..., Network]:
    def make(**settings: Any) -> Network:
        torch.manual_seed(0)
        return Network(**settings)

    return make


@pytest.fixture
def make_trainer(make_network: Callable[..., Network]) -> Callable[..., CaseTrainer]:
    def make(
        *,
        n: int = 7,
        batch_size: int = 2,
        network: nn.Module | None = None,
        data: Dataset | None = None,
        learning_rate: float = 1e-2,
        **settings: Any,
    ) -> CaseTrainer:
        network = make_network() if network is None else network
        arguments = {
            "device": "cpu",
            "max_epochs": 2,
            "train_data_loader": case_loader(data or Cases(n), batch_size=batch_size, shuffle=True, seed=5),
            "network": network,
            "optimizer": adamw(network=network, learning_rate=learning_rate),
            "loss_function": cross_entropy(num_classes=2),
            "seed": 11,
        }
        return CaseTrainer(**{**arguments, **settings})

    return make


@pytest.fixture
def make_cases() -> type[Cases]:
    return Cases
