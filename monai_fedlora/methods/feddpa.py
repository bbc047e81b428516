"""FedDPA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_fedlora.adapters.active_adapters import set_weights, with_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Phase, register
from monai_fedlora.methods.checks import check_fraction
from monai_fedlora.methods.low_rank import PRIVATE_ONLY, SHARED_ONLY, AveragedLora, is_factor, is_head


@register
@dataclass(frozen=True, kw_only=True)
class FedDpa(AveragedLora):
    """A global and a local adapter that train in turn, each as if alone, and are mixed to infer (Yang et al.,
    NeurIPS 2024).

    The personal model computes W0 x + (1 - mix) s B_g A_g x + mix s B_l A_l x. The paper also derives the mix of each
    instance from its similarity to the training cases; that is not implemented. Its models have no new head: here a
    shared head trains with the global adapter, a private one with both.

    What we chose: the two adapters divide the round's steps, the global one first, and mix is 0.5.

    Args:
        mix: weight of the local adapter, from 0 (global alone) to 1 (local alone).
        private_share: part of the round's steps for the local adapter, above 0 and below 1.
    """

    name = "feddpa"
    summary = "shared and private LoRA trained in turn, mixed to infer; the shared one is averaged"
    source = "FedDPA, Yang et al., NeurIPS 2024"
    adapters = (SHARED, PRIVATE)

    mix: float = 0.5
    private_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("private_share", self.private_share)
        if type(self.mix) not in (int, float) or not 0 <= self.mix <= 1:
            raise ConfigError(f"mix is {self.mix!r}; it must be a number from 0 (shared alone) to 1 (private alone)")

    def attach(self, network: Any) -> None:
        """Add both adapters, mixed."""
        super().attach(network)
        set_weights(network, {SHARED: 1 - self.mix, PRIVATE: self.mix})

    def phases(self, network: Any) -> Sequence[Phase]:
        """The shared adapter alone, then the private one alone."""
        return (
            Phase(
                share=1 - self.private_share,
                trains=lambda key: is_factor(key, SHARED) or is_head(key, network),
                view=lambda: with_weights(network, SHARED_ONLY),
            ),
            Phase(
                share=self.private_share,
                trains=lambda key: is_factor(key, PRIVATE) or (self.head == "private" and is_head(key, network)),
                view=lambda: with_weights(network, PRIVATE_ONLY),
            ),
        )
