"""What federated methods are measured against: every site for itself, and all data in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.low_rank import LoraMethod


@register
@dataclass(frozen=True, kw_only=True)
class Local(LoraMethod):
    """Each site trains its own adapter and head; nothing travels."""

    name = "local"
    summary = "one private LoRA and head per site; nothing is sent"
    source = "no communication"
    adapters = (PRIVATE,)
    heads = ("private",)

    head: Literal["private"] = "private"

    @property
    def why_not_noised(self) -> str:
        """There is nothing to hide."""
        return "nothing leaves the site"


@register
@dataclass(frozen=True, kw_only=True)
class Centralised(LoraMethod):
    """One adapter and head trained on the pooled data of all sites, the upper bound of what sharing can give.

    The only "site" holds everybody's cases, so that nothing is averaged.
    """

    name = "centralised"
    summary = "one LoRA and head on the pooled data, an upper bound"
    source = "no federation"
    most_sites = 1
    adapters = (SHARED,)
    heads = ("shared",)

    head: Literal["shared"] = "shared"
