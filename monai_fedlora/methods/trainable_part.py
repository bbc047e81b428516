"""Methods that leave open how much of the network trains."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.checks import check_choice
from monai_fedlora.methods.full import WHY_NOT_EVERYTHING
from monai_fedlora.methods.low_rank import AveragedLora, is_head


@dataclass(frozen=True, kw_only=True)
class AdaptersOrEverything(AveragedLora):
    """One shared adapter and the head, or the whole network.

    Args:
        trains: "adapters", or "everything" as in publications that fine-tune; then the adapters' settings have no
            effect.
    """

    adapters = (SHARED,)

    trains: Literal["adapters", "everything"] = "adapters"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("trains", self.trains, ("adapters", "everything"))
        if self.trains == "everything" and self.averaging == "product":
            raise ConfigError("averaging 'product' is about adapters, and with trains 'everything' there are none")

    @property
    def why_not_noised(self) -> str | None:
        """Everything is too much, and a private head is part of every view."""
        return super().why_not_noised or (WHY_NOT_EVERYTHING if self.trains == "everything" else None)

    def attach(self, network: Any) -> None:
        """Add the adapters to a frozen backbone, or make every parameter trainable."""
        if self.trains == "everything":
            network.requires_grad_(True)
        else:
            super().attach(network)

    def is_shared(self, key: str, network: Any) -> bool:
        """Shared is what trains, the head if so set."""
        if self.trains == "everything":
            return self.head == "shared" or not is_head(key, network)
        return super().is_shared(key, network)

    def shared_only(self, network: Any) -> AbstractContextManager[None] | None:
        """The network as it is, nothing of it being private; None where the head never leaves the site."""
        return nullcontext() if self.head == "shared" else None
