"""Comparisons of logits that every export has to pass before its folder appears."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ExportError

if TYPE_CHECKING:
    from monai_fedlora.exporting.finished import FinishedModel

TOLERANCE = 1e-5
"""Largest difference between logits, relative to their size where they exceed 1."""


def probe_image(shape: tuple[int, ...]) -> Tensor:
    """(1, \\*shape) uniform noise in [0, 1], the same each time."""
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))


def logits(network: nn.Module, *inputs: Tensor) -> Tensor:
    """The network's output without gradients."""
    with torch.no_grad():
        return network(*inputs)


def assessed(model: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The model's ``assess`` without gradients: logits and distances."""
    with torch.no_grad():
        return model.assess(*inputs)


def exported_view(model: FinishedModel, network: nn.Module) -> AbstractContextManager[None]:
    """Context in which an adapted network computes the exported model: a shared one without private parts.

    Args:
        model: the finished model.
        network: its rebuilt, adapted network.

    Raises:
        ExportError: the method has no shared model.
    """
    if model.site is not None:
        return nullcontext()
    context = model.plan.build_method().shared_only(network)
    if context is None:
        raise ExportError(f"{model.plan.method} has no shared model; export a site's own model instead")
    return context


def assert_equal(found: Tensor, expected: Tensor, what: str) -> None:
    """Compare logits.

    Raises:
        ExportError: they differ by more than :data:`TOLERANCE`, or are not finite.
    """
    gap = (found - expected).abs().max() / expected.abs().max().clamp(min=1.0)
    if not gap <= TOLERANCE:
        raise ExportError(
            f"{what}: by {float(gap):.2g}, more than {TOLERANCE:g}; nothing was written. Please report this together "
            "with the versions of torch, monai and peft"
        )
