"""Bound what one patient can change of a sum, and hide it in noise (Abadi et al., CCS 2016, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from monai_fedlora.privacy.randomness import Randomness

_MARGIN = 1 - 1e-6
"""Share of the limit that a clipped gradient has, so that rounding never takes it beyond."""


def clipped_sum(
    gradients: Mapping[str, Tensor], clip: float, weights: Tensor | None = None
) -> tuple[dict[str, Tensor], int]:
    """Sum of some patients' gradients, each scaled down to an L2 norm of at most ``clip`` over all tensors together.

    Adding or removing a patient changes the sum of all patients by at most ``clip``. A gradient that is not finite
    counts as zero: an error would tell whoever waits for the answer that the patient is there.

    Args:
        gradients: (U, *shape) by name.
        clip: above 0.
        weights: (U,), from 0 to 1, of patients' clipped gradients in the sum; None for ones. A weight before clipping
            would be clipped away with the gradient's length.

    Returns:
        The sums (*shape), float64, by name, and the number of patients whose gradient is not finite.

    Raises:
        ValueError: a weight is out of range, with which the limit would not hold. Whoever has weights by class checks
            those of all classes before, so that no patient decides whether this is raised.
    """
    flat = {name: part.reshape(len(part), math.prod(part.shape[1:])).double() for name, part in gradients.items()}
    norms = torch.stack([part.square().sum(1) for part in flat.values()]).sum(0).sqrt()
    finite = norms.isfinite()
    scales = torch.where(finite, (_MARGIN * clip / norms).clamp(max=1), torch.zeros_like(norms))
    if weights is not None:
        if not bool(((weights >= 0) & (weights <= 1)).all()):
            raise ValueError("weights of clipped gradients lie from 0 to 1")
        scales = scales * weights.double()
    if not finite.all():
        flat = {name: part.masked_fill(~finite[:, None], 0) for name, part in flat.items()}
    sums = {name: (scales @ part).view(gradients[name].shape[1:]) for name, part in flat.items()}
    return sums, int((~finite).sum())


def added(sums: Iterable[Mapping[str, Tensor]], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add sums of several chunks of patients; zeros, float64, where there is none."""
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in like.items()}
    for part in sums:
        for name, tensor in part.items():
            total[name] += tensor
    return total


def noised_mean(
    sums: Mapping[str, Tensor], *, clip: float, noise_multiplier: float, expected: float, randomness: Randomness
) -> dict[str, Tensor]:
    """Add normal noise with a standard deviation of ``noise_multiplier * clip`` to every coordinate of a sum.

    Noise and sum are added in float64 and rounded to float32 afterwards, so that the lowest bits, in which numbers with
    drawn noise differ from real ones (Mironov, CCS 2012), are gone.

    Args:
        sums: by name, of gradients clipped to ``clip``.
        clip, noise_multiplier: above 0.
        expected: what the sum is divided by: the number of patients expected in a step, never the one that was drawn.
        randomness: of the site.

    Returns:
        Tensors of the shape of the sums, float32.
    """
    count = sum(tensor.numel() for tensor in sums.values())
    noise = torch.from_numpy(randomness.normal(count)) * (noise_multiplier * clip)
    parts = noise.split([tensor.numel() for tensor in sums.values()])
    return {
        name: ((tensor + part.view(tensor.shape).to(tensor.device)) / expected).float()
        for (name, tensor), part in zip(sums.items(), parts, strict=True)
    }
