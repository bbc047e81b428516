"""Methods that train low-rank adapters and the classification head on a frozen backbone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, attach_lora, without_adapter
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Method, register


@dataclass(frozen=True, kw_only=True)
class LoraMethod(Method):
    """Adapters named in ``adapters`` on the last blocks, plus the head.

    Args:
        rank, alpha, dropout, blocks, targets: see :class:`monai_fedlora.adapters.lora.LoraSettings`.
        head: whether the classification head is averaged ("shared") or stays in the site ("private").
    """

    adapters: ClassVar[tuple[str, ...]]

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    blocks: int = 2
    targets: tuple[str, ...] = ("q", "v")
    head: Literal["shared", "private"] = "shared"

    def __post_init__(self) -> None:
        self.lora  # noqa: B018  (validates the values)
        if self.head not in ("shared", "private"):
            raise ConfigError(f"head is {self.head!r}; it is either 'shared' or 'private'")

    @property
    def lora(self) -> LoraSettings:
        """The adapters' settings."""
        return LoraSettings(
            rank=self.rank, alpha=self.alpha, dropout=self.dropout, blocks=self.blocks, targets=self.targets
        )

    def attach(self, network: Any) -> None:
        """Freeze the backbone, add the adapters, leave the head trainable."""
        attach_lora(network, self.lora, self.adapters)
        for name, parameter in network.named_parameters():
            if name.startswith(network.head_prefixes):
                parameter.requires_grad_(True)

    def is_shared(self, key: str, network: Any) -> bool:
        """Shared are the ``shared`` adapter and, if so set, the head."""
        if key.startswith(network.head_prefixes):
            return self.head == "shared"
        return f".lora_A.{SHARED}." in key or f".lora_B.{SHARED}." in key

    def shared_only(self, network: Any) -> AbstractContextManager[None] | None:
        """The network without its private adapter; None where the head never leaves the site."""
        return without_adapter(network, PRIVATE) if self.head == "shared" else None


@register
@dataclass(frozen=True, kw_only=True)
class DualLora(LoraMethod):
    """Shared and private adapters trained together; only the shared one is averaged.

    Implements Med-DualLoRA as described (arXiv 2603.10967). The paper does not give, and we chose: rank 8,
    alpha 16, no dropout, the attention's q and kv of the last two blocks, a shared head.
    """

    name = "dual_lora"
    summary = "shared + private LoRA, trained together; the shared one is averaged"
    source = "Med-DualLoRA, arXiv 2603.10967"
    adapters = (SHARED, PRIVATE)


@register
@dataclass(frozen=True, kw_only=True)
class FedIt(LoraMethod):
    """One shared adapter, its factors averaged separately (Zhang et al., ICASSP 2024).

    Averaging A and B separately is not averaging the product BA; rounds start from equal factors, which keeps
    the difference small.
    """

    name = "fedit"
    summary = "one LoRA, A and B averaged"
    source = "FedIT, Zhang et al., ICASSP 2024"
    adapters = (SHARED,)


@register
@dataclass(frozen=True, kw_only=True)
class Local(LoraMethod):
    """Each site trains its own adapter and head; nothing travels."""

    name = "local"
    summary = "one private LoRA and head per site; nothing is sent"
    source = "no communication"
    adapters = (PRIVATE,)

    head: Literal["private"] = "private"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head != "private":
            raise ConfigError("local shares nothing, so its head must be 'private'")
