"""pFedST."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from monai_fedlora.adapters.active_adapters import with_weights
from monai_fedlora.adapters.lora import PRIVATE, LoraSettings
from monai_fedlora.adapters.side import PREFIX, SideSettings, attach_side
from monai_fedlora.methods.base import Method, Phase, register
from monai_fedlora.methods.checks import check_choice, check_fraction
from monai_fedlora.methods.low_rank import SHARED_ONLY, is_head


@register
@dataclass(frozen=True, kw_only=True)
class PFedST(Method):
    """A side network beside the frozen backbone is averaged; low-rank adapters inside it stay in the site.

    Implements pFedST as its figure shows it (MICCAI 2025, paper 0548), see :mod:`monai_fedlora.adapters.side`. The
    backbone is CLIP's image encoder and a class's score is the similarity of the image's features to those of a text
    about it. The figure does not give, and we chose: an eighth of the backbone's width, 4 heads, no biases, private
    adapters of rank 4 and alpha 4, everything trained together, and a linear head for backbones without texts.

    Args:
        width, heads, taps: see :class:`monai_fedlora.adapters.side.SideSettings`.
        rank, alpha: of the private adapters.
        schedule: "joint" trains both parts in every step. The others divide each round's steps, the shared part first:
            in "alternate" each part trains while the other takes part and stays as it is; in "private_after" the shared
            part trains as if there was no private one, so that what a site sends never depends on it, and the private
            part then learns what is left, at every end of a round for the shared part of that round.
        private_share: part of the round's steps for the private part where the two take turns, above 0 and below 1.
        classifier: "text" compares with texts about the classes, which needs CLIP, and trains no head; "linear" trains
            and shares the backbone's linear head.
    """

    name = "pfedst"
    summary = "a side network averaged, LoRA inside it private; the backbone needs no gradient"
    source = "pFedST, MICCAI 2025, paper 0548"

    width: int = 0
    heads: int = 4
    taps: tuple[int, ...] = ()
    rank: int = 4
    alpha: float = 4.0
    schedule: Literal["joint", "alternate", "private_after"] = "joint"
    private_share: float = 0.5
    classifier: Literal["text", "linear"] = "text"

    def __post_init__(self) -> None:
        self.side, self.lora  # noqa: B018  (validates the values)
        check_choice("schedule", self.schedule, ("joint", "alternate", "private_after"))
        check_fraction("private_share", self.private_share)
        check_choice("classifier", self.classifier, ("text", "linear"))

    @property
    def side(self) -> SideSettings:
        """The side network's shape."""
        return SideSettings(width=self.width, heads=self.heads, taps=self.taps)

    @property
    def lora(self) -> LoraSettings:
        """The private adapters' settings."""
        return LoraSettings(rank=self.rank, alpha=self.alpha)

    @property
    def reads_text(self) -> bool:
        """Whether texts about the classes take the place of a linear head."""
        return self.classifier == "text"

    @property
    def why_not_noised(self) -> None:
        """The side network trains without the adapters inside it."""

    def attach(self, network: Any) -> None:
        """Freeze the backbone, put the side network beside it, and leave a linear head trainable."""
        attach_side(network, self.side, private=self.lora)
        for name, parameter in network.named_parameters():
            if self.classifier == "linear" and is_head(name, network):
                parameter.requires_grad_(True)

    def is_shared(self, key: str, network: Any) -> bool:
        """Shared are the side network and a linear head; nothing called ``private`` ever is."""
        return f".{PRIVATE}." not in key and (key.startswith(PREFIX) or is_head(key, network))

    def shared_only(self, network: Any) -> AbstractContextManager[None]:
        """The network without its private adapters."""
        return with_weights(network, SHARED_ONLY)

    def phases(self, network: Any) -> Sequence[Phase]:
        """The shared part, then the private one on top; nothing where both train together."""
        if self.schedule == "joint":
            return ()
        return (
            Phase(
                share=1 - self.private_share,
                trains=lambda key: self.is_shared(key, network),
                view=lambda: self.shared_only(network) if self.schedule == "private_after" else nullcontext(),
            ),
            Phase(share=self.private_share, trains=lambda key: not self.is_shared(key, network)),
        )
