"""Shared and private adapters that are kept orthogonal to each other."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.adapters.orthogonality import FORMS, Form, overlap
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Penalty, register
from monai_fedlora.methods.checks import check_choice, check_weight
from monai_fedlora.methods.low_rank import AveragedLora


@register
@dataclass(frozen=True, kw_only=True)
class FedOpal(AveragedLora):
    """Shared and private adapters trained together on L_task + weight * overlap; only the shared one is averaged.

    Implements FedOPAL as described (Tupper and Gagné, arXiv 2510.12741): both adapters at the same time, orthogonal in
    their weights or in their representations. The paper does not give, and we chose: the forms of the overlap and their
    eps (:mod:`monai_fedlora.adapters.orthogonality`), W1, a weight of 0.1, the mean over layers, gradients to both
    adapters, rank 8, alpha 16, no dropout, the attention's q and v of every block, a shared head.

    Args:
        orthogonality: "W1", rows of A; "W2", also columns of B; "W3", the products BA; "R", the outputs for what
            each layer was given, as a rule tokens.
        weight: factor lambda of the overlap in the loss, at least 0; 0 is dual LoRA to the bit.
        stop_gradient: "shared" lets the overlap move the private adapter only, "none" both.
    """

    name = "fedopal"
    summary = "shared + private LoRA kept orthogonal; the shared one is averaged"
    source = "FedOPAL, Tupper and Gagné, arXiv 2510.12741"
    adapters = (SHARED, PRIVATE)

    blocks: int = 0
    orthogonality: Form = "W1"
    weight: float = 0.1
    stop_gradient: Literal["none", "shared"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.orthogonality not in FORMS:
            close = difflib.get_close_matches(str(self.orthogonality).upper(), FORMS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? It" if close else "it"
            raise ConfigError(
                f"orthogonality is {self.orthogonality!r}; {hint} is W1 (rows of A), W2 (also columns of B), "
                "W3 (the products BA) or R (the adapters' outputs)"
            )
        check_weight("weight", self.weight)
        check_choice("stop_gradient", self.stop_gradient, ("none", "shared"))

    @property
    def needs_matrices(self) -> bool:
        """The overlap is that of rows, columns and products of matrices."""
        return True

    def penalty(self, network: Any) -> AbstractContextManager[Penalty] | None:
        """The weighted overlap of the adapters; None where its weight is 0."""
        return self._weighted_overlap(network) if self.weight else None

    @contextmanager
    def _weighted_overlap(self, network: Any) -> Iterator[Penalty]:
        detach_shared = self.stop_gradient == "shared"
        with overlap(network, self.orthogonality, detach_shared=detach_shared) as mean:
            yield lambda: self.weight * mean()
