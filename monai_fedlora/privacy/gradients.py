"""Gradients of single patients, exact, by ``torch.func``.

Hooks on layers, as Opacus has, see the gradients of modules that are called; adapted layers here multiply with stacked
factors that no module is called for. A function of the parameters is differentiated for every patient instead, which
holds for whatever the network computes with them.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

CHUNK = 32
"""Images that are differentiated at once (ours); memory grows with it, and speed hardly beyond it."""

Loss = Callable[[Mapping[str, Tensor], Sequence[Tensor], Tensor], Tensor]
"""One patient's mean loss, a scalar, as a function of parameters by name, inputs (K, ...) and targets (K, ...)."""


@dataclass(frozen=True)
class UnitGradients:
    """Gradients of some patients.

    Attributes:
        gradients: (U, *shape) by the parameter's name.
        losses: (U,).
        weights: (U,), the mean of the patient's images'; ones where images have none.
    """

    gradients: Mapping[str, Tensor]
    losses: Tensor
    weights: Tensor


def unit_gradients(
    loss: Loss,
    parameters: Mapping[str, Tensor],
    *,
    inputs: Sequence[Tensor],
    targets: Tensor,
    sizes: Sequence[int],
    weights: Tensor | None = None,
    chunk: int = CHUNK,
) -> Iterator[UnitGradients]:
    """Gradients of every patient's own mean loss, some patients at a time.

    Patients with equally many images are differentiated together. A patient is never divided, so that the gradient is
    that of one function of all of the patient's images, which clipping then bounds as a whole.

    Args:
        loss: must not mix patients, which it never sees together.
        parameters: by name, detached; what else ``loss`` computes with is constant.
        inputs: tensors (B, ...) of the images, those of one patient behind each other.
        targets: (B, ...).
        sizes: number of images of each patient, adding up to B.
        weights: (B,), handed on by patient and not computed with; None for ones.
        chunk: largest number of images at once, unless one patient has more.

    Yields:
        Chunks that together hold every patient once, in any order; nothing where there is no patient.
    """
    places: dict[int, list[int]] = defaultdict(list)
    first = 0
    for size in sizes:
        places[size].append(first)
        first += size
    if first != len(targets):
        raise ValueError(f"{len(targets)} images for patients with {first}")
    of_all = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")
    for size, starts in sorted(places.items()):
        at_once = max(1, chunk // size)
        for begin in range(0, len(starts), at_once):
            index = torch.tensor(starts[begin : begin + at_once])[:, None] + torch.arange(size)
            rows = index.to(targets.device)
            with torch.no_grad(), warnings.catch_warnings():  # what is constant here may train elsewhere
                warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet")
                gradients, losses = of_all(parameters, [tensor[rows] for tensor in inputs], targets[rows])
            yield UnitGradients(
                gradients, losses, torch.ones_like(losses) if weights is None else weights[rows].mean(1)
            )
