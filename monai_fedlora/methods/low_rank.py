"""What the methods share that train low-rank adapters and the classification head on a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from monai_fedlora.adapters.active_adapters import with_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, add_adapters
from monai_fedlora.adapters.targets import check_matrices, target_modules
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Method
from monai_fedlora.methods.checks import check_choice, check_head
from monai_fedlora.methods.rules import RULES, Payload, Updates, with_products_length
from monai_fedlora.scope import Manifest

SHARED_ONLY = {SHARED: 1.0, PRIVATE: 0.0}
PRIVATE_ONLY = {SHARED: 0.0, PRIVATE: 1.0}


@dataclass(frozen=True, kw_only=True)
class LoraMethod(Method):
    """Adapters named in ``adapters`` on the last blocks, plus the head.

    Args:
        rank, alpha, dropout, blocks, targets: see :class:`monai_fedlora.adapters.lora.LoraSettings`.
        head: whether the classification head is averaged ("shared") or stays in the site ("private"); a method may
            leave only one of them.
    """

    adapters: ClassVar[tuple[str, ...]]
    heads: ClassVar[tuple[str, ...]] = ("shared", "private")

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    blocks: int = 2
    targets: tuple[str, ...] = ("q", "v")
    head: Literal["shared", "private"] = "shared"

    def __post_init__(self) -> None:
        self.lora  # noqa: B018  (validates the values)
        if self.head not in self.heads:
            choices = " or ".join(map(repr, self.heads))
            raise ConfigError(f"head is {self.head!r}; for {self.name} it is {choices}")

    @property
    def lora(self) -> LoraSettings:
        """The adapters' settings."""
        return LoraSettings(
            rank=self.rank, alpha=self.alpha, dropout=self.dropout, blocks=self.blocks, targets=self.targets
        )

    @property
    def needs_matrices(self) -> bool:
        """Whether the method computes with the products B A as matrices, so that it cannot adapt convolutions."""
        return False

    def attach(self, network: Any) -> None:
        """Freeze the backbone, add the adapters, leave the head trainable.

        Raises:
            ConfigError: see :func:`monai_fedlora.adapters.targets.target_modules`; a convolution where the method needs
                matrices; or the head shall stay in the site, and the network has none.
        """
        layers = target_modules(network, targets=self.targets, blocks=self.blocks)
        if self.needs_matrices:
            check_matrices(network, layers, self.name)
        if self.head == "private" and "shared" in self.heads:
            check_head(network, f"{self.name} with a private head")
        self.adapt(network, layers)

    def adapt(self, network: Any, layers: Sequence[str]) -> None:
        """Add the adapters to the layers with these dotted names, and leave the head trainable."""
        add_adapters(network, layers, self.lora, self.adapters)
        for name, parameter in network.named_parameters():
            if is_head(name, network):
                parameter.requires_grad_(True)

    def is_shared(self, key: str, network: Any) -> bool:
        """Shared are the ``shared`` adapter and, if so set, the head; nothing called ``private`` ever is."""
        if is_head(key, network):
            return self.head == "shared" and f".{PRIVATE}." not in key
        return is_factor(key, SHARED)

    @property
    def why_not_noised(self) -> str | None:
        """A private head is part of every view."""
        if self.head == "shared":
            return None
        return "its head stays in the site, and nothing that is shared can be trained without a head"

    def shared_only(self, network: Any) -> AbstractContextManager[None] | None:
        """The network without its private parts; None where the head never leaves the site."""
        return with_weights(network, SHARED_ONLY) if self.head == "shared" else None


def is_head(key: str, network: Any) -> bool:
    """Whether a state-dict key belongs to a classification head."""
    return key.startswith(network.head_prefixes)


def is_factor(key: str, adapter: str) -> bool:
    """Whether a state-dict key is A or B of an adapter."""
    return f".lora_A.{adapter}." in key or f".lora_B.{adapter}." in key


@dataclass(frozen=True, kw_only=True)
class AveragedLora(LoraMethod):
    """LoRA methods of which both factors of the shared adapter travel.

    Averaging A and B apart is not averaging the products B A that the network computes with. Rounds start from equal
    factors, which keeps the difference small.

    Args:
        averaging: "factors" averages A and B apart, as FedIT does; "product" averages B A and factors the result
            anew, see :func:`monai_fedlora.methods.rules.average_products`. What is averaged beside the adapters is
            averaged either way. Of both there are robust forms, which a minority of sites cannot move at will:
            "median" and "trimmed_mean" of each coordinate, "geometric_median" and "multi_krum" of whole updates, and
            the same after "product_", see :mod:`monai_fedlora.methods.robust`. Other packages may add rules, see
            :data:`monai_fedlora.methods.rules.RULES`.
    """

    averaging: str = "factors"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("averaging", self.averaging, RULES.names())

    @property
    def rule(self) -> str | None:
        """As ``averaging`` says."""
        return self.averaging

    @property
    def needs_matrices(self) -> bool:
        """Products are averaged as matrices."""
        return RULES[self.averaging].products

    def starts_over(self, key: str, network: Any) -> bool:
        """The factors, where products are averaged: their new decomposition has other directions."""
        return RULES[self.averaging].products and is_factor(key, SHARED)

    def aggregate(self, updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
        """Combine the shared tensors as ``averaging`` says."""
        return RULES[self.averaging].combine(updates, reference, manifest)

    def change_length(self, tensors: Payload, reference: Payload, manifest: Manifest) -> float:
        """Length of the change of what is averaged: the factors or their product, and the head."""
        if RULES[self.averaging].products:
            return with_products_length(tensors, reference, manifest)
        return super().change_length(tensors, reference, manifest)
