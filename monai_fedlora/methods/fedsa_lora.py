"""FedSA-LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.low_rank import LoraMethod


@register
@dataclass(frozen=True, kw_only=True)
class FedSaLora(LoraMethod):
    """One adapter, of which A is averaged and B stays in the site, and a private head (Guo et al., ICLR 2025).

    A learns what sites have in common, B what is particular. The one adapter is called ``shared``, after the factor
    that travels; without B and a head there is no model for an unseen site.
    """

    name = "fedsa_lora"
    summary = "one LoRA: A is averaged, B and the head are private"
    source = "FedSA-LoRA, Guo et al., ICLR 2025"
    adapters = (SHARED,)
    heads = ("private",)

    head: Literal["private"] = "private"

    @property
    def why_not_noised(self) -> str:
        """A does nothing by itself."""
        return "B and the head stay in the site, and A cannot be trained without them"

    def is_shared(self, key: str, network: Any) -> bool:
        """A alone travels."""
        return f".lora_A.{SHARED}." in key
