"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from monai_fedlora.methods.base import Method, register

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


WHY_NOT_EVERYTHING = (
    "every weight trains, the noise grows with their number, and gradients of all weights for each patient find no "
    "room; choose a method that trains adapters"
)
"""What stands against a budget where the whole network trains."""


@register
@dataclass(frozen=True, kw_only=True)
class FedAvg(Method):
    """Every weight trains and every weight is averaged (McMahan et al., AISTATS 2017, algorithm 1).

    Buffers (position tables) are no parameters; they neither train nor travel.
    """

    name = "fedavg"
    summary = "full fine-tuning, everything averaged"
    source = "McMahan et al., AISTATS 2017"

    @property
    def why_not_noised(self) -> str:
        """Everything trains."""
        return WHY_NOT_EVERYTHING

    def attach(self, network: Any) -> None:
        """Make every parameter trainable."""
        network.requires_grad_(True)

    def is_shared(self, key: str, network: Any) -> bool:
        """Everything that trains travels."""
        return True


@register
@dataclass(frozen=True, kw_only=True)
class FedBn(FedAvg):
    """Every weight trains; normalisation layers stay in the site (Li et al., ICLR 2021).

    The paper keeps batch normalisation. The backbones here have none, so that we keep every kind of normalisation
    layer, by the module's type: layer, group, batch and instance normalisation, with all their parameters.

    There is no model for an unseen site: the paper gives none, and the averaged weights have never computed with the
    backbone's original normalisation layers.
    """

    name = "fedbn"
    summary = "full fine-tuning, everything but normalisation layers averaged"
    source = "FedBN, Li et al., ICLR 2021"

    @property
    def why_not_noised(self) -> str:
        """Normalisation layers are part of every view."""
        return "its normalisation layers stay in the site, and nothing that is shared can be trained without them"

    def is_shared(self, key: str, network: Any) -> bool:
        """What is in no normalisation layer travels."""
        return not isinstance(network.get_submodule(key.rpartition(".")[0]), _NORMS)

    def shared_only(self, network: Any) -> None:
        """None: a new site has no normalisation layers of its own."""
        return None
