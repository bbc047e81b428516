"""Baselines without adapters: CLIP's zero-shot classification, and a linear head on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_fedlora.methods.base import Method, register
from monai_fedlora.methods.checks import check_head
from monai_fedlora.methods.low_rank import is_head


@register
@dataclass(frozen=True, kw_only=True)
class ClipZeroShot(Method):
    """CLIP compares images with texts about the classes; nothing trains and nothing travels (Radford et al., 2021).

    Its federation only evaluates: every round gives the same result, so that one is enough.
    """

    name = "clip_zero_shot"
    summary = "CLIP as it is, classes as texts; nothing trains and nothing is sent"
    source = "CLIP, Radford et al., ICML 2021"

    @property
    def reads_text(self) -> bool:
        """Texts about the classes take the place of a linear head."""
        return True

    @property
    def why_not_noised(self) -> str:
        """There is nothing to hide."""
        return "nothing trains and nothing leaves the site"

    def attach(self, network: Any) -> None:
        """Freeze everything."""
        network.requires_grad_(False)

    def is_shared(self, key: str, network: Any) -> bool:
        """False: nothing trains."""
        return False


@register
@dataclass(frozen=True, kw_only=True)
class LinearProbe(Method):
    """The linear head trains on the frozen backbone's features and is averaged.

    CLIP's own probe (Radford et al., ICML 2021, section 3.2) is a logistic regression on the features of one data set;
    here it is trained as every other method is, and the sites' heads are averaged.
    """

    name = "linear_probe"
    summary = "the linear head alone, averaged"
    source = "linear probe of CLIP, Radford et al., ICML 2021"

    @property
    def why_not_noised(self) -> None:
        """Nothing is private."""

    def attach(self, network: Any) -> None:
        """Freeze everything but the head."""
        check_head(network, self.name)
        for key, parameter in network.named_parameters():
            parameter.requires_grad_(is_head(key, network))

    def is_shared(self, key: str, network: Any) -> bool:
        """The head travels."""
        return is_head(key, network)
