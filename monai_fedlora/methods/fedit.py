"""FedIT."""

from __future__ import annotations

from dataclasses import dataclass

from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.base import register
from monai_fedlora.methods.low_rank import AveragedLora


@register
@dataclass(frozen=True, kw_only=True)
class FedIt(AveragedLora):
    """One shared adapter, by default its factors averaged separately (Zhang et al., ICASSP 2024)."""

    name = "fedit"
    summary = "one LoRA, A and B averaged"
    source = "FedIT, Zhang et al., ICASSP 2024"
    adapters = (SHARED,)
