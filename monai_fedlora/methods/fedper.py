"""Methods with a common base and a head of each site's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from monai_fedlora.methods.base import Phase, register
from monai_fedlora.methods.checks import check_fraction, check_head
from monai_fedlora.methods.low_rank import is_head
from monai_fedlora.methods.trainable_part import AdaptersOrEverything


@register
@dataclass(frozen=True, kw_only=True)
class FedPer(AdaptersOrEverything):
    """The base is averaged, the head stays in the site; both train together (Arivazhagan et al., arXiv 1912.00818).

    In the paper the base is every layer but the last ones. Here it is the adapters, or with ``trains`` "everything"
    all but the linear heads.
    """

    name = "fedper"
    summary = "LoRA (or everything but the head) averaged; the head is private"
    source = "FedPer, Arivazhagan et al., arXiv 1912.00818"
    heads = ("private",)

    head: Literal["private"] = "private"

    def attach(self, network: Any) -> None:
        """Add the adapters, or make everything trainable; without a head there is nothing to keep."""
        check_head(network, self.name)
        super().attach(network)


@register
@dataclass(frozen=True, kw_only=True)
class FedRep(FedPer):
    """FedPer in which first the head trains and then the base (Collins et al., ICML 2021, algorithm 1).

    The paper lets the head take many steps and the base one or an epoch; the round's steps are divided here, so that
    all methods compute as much.

    Args:
        head_share: part of the round's steps that train the head, above 0 and below 1 (ours: 0.5).
    """

    name = "fedrep"
    summary = "as fedper; in each round the head trains first, then the base"
    source = "FedRep, Collins et al., ICML 2021"

    head_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("head_share", self.head_share)

    def phases(self, network: Any) -> Sequence[Phase]:
        """The head on a fixed base, then the base under a fixed head."""
        return (
            Phase(share=self.head_share, trains=lambda key: is_head(key, network)),
            Phase(share=1 - self.head_share, trains=lambda key: not is_head(key, network)),
        )
