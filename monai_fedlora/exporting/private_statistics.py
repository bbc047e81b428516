"""Differentially private mean and quantile of a site's patients.

Neighbouring data sets are two groups of n patients that differ in one. The privacy loss is given as zero-concentrated
differential privacy (Bun and Steinke, TCC 2016, arXiv 1605.02065): Gaussian noise of standard deviation s on a value
that one patient changes by at most D gives rho = D^2 / (2 s^2); the rho of several releases add up; and rho-zCDP
implies (rho + 2 sqrt(rho ln(1 / delta)), delta)-differential privacy for every delta.

The generator of the noise must have a secret seed, never one of the plan, which others know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_STEPS = (0.3, 0.7)
"""Shares of the two steps in the budget of the mean (ours)."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Privacy budget as rho of zCDP.

    Attributes:
        mean: for the mean.
        quantile: for the quantile.
    """

    mean: float = 0.75
    quantile: float = 0.25

    @property
    def rho(self) -> float:
        """The sum of both."""
        return self.mean + self.quantile


def epsilon(rho: float, delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy that rho-zCDP implies, for a delta in (0, 1)."""
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def private_mean(
    values: Tensor, *, radius: float, spread: float, rho: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """The mean of patients, rho-zCDP.

    The values are clipped to a ball around the origin and averaged with noise. This is repeated with a smaller ball
    around the result, after Biswas et al., "CoinPress", NeurIPS 2020 (arXiv 2006.06618), here with radii of our own.

    Args:
        values: (n, k), one row per patient.
        radius: of the first ball; must not depend on the patients, nor must ``spread``.
        spread: half the radius of a ball that contains the patients of one site; the radius of the second ball also
            allows for the noise of the first step.
        rho: above 0.
        generator: of the noise.

    Returns:
        The mean (k,), and the standard deviation of the noise in each of its coordinates.
    """
    patients, size = values.shape
    centre, reach, deviation = values.new_zeros(size), radius, 0.0
    for share in _STEPS:
        offsets = values - centre
        clipped = offsets * (reach / offsets.norm(dim=1, keepdim=True).clamp(min=reach))
        deviation = 2 * reach / patients / math.sqrt(2 * rho * share)
        noise = torch.randn(size, generator=generator, dtype=values.dtype)
        centre = centre + clipped.mean(dim=0) + deviation * noise
        reach = min(reach, 1.2 * math.sqrt(size) * deviation + 2 * spread)
    return centre, deviation


def private_quantile(
    values: Tensor, *, share: float, lowest: float, highest: float, rho: float, generator: torch.Generator
) -> float:
    """A quantile of the values, rho-zCDP.

    The exponential mechanism on ranks (Smith, STOC 2011, algorithm 2), here on logarithms, so that a wide range costs
    little. It is sqrt(8 rho)-differentially private, hence rho-zCDP (Cesar and Rogers, ALT 2021, arXiv 2004.07223).

    Args:
        values: (n,), one per patient.
        share: of the values below the result, in (0, 1).
        lowest: above 0; values are clipped to the range from ``lowest`` to ``highest``, which must not depend on the
            patients.
        highest: above ``lowest``.
        rho: above 0.
        generator: of the random choice.
    """
    strength = math.sqrt(8 * rho)
    inner = values.double().clamp(lowest, highest).log().sort().values
    edges = torch.cat([inner.new_tensor([math.log(lowest)]), inner, inner.new_tensor([math.log(highest)])])
    ranks = torch.arange(len(inner) + 1, dtype=torch.float64)
    scores = edges.diff().log() - strength / 2 * (ranks - share * len(inner)).abs()
    chosen = int(torch.multinomial((scores - scores.max()).exp(), 1, generator=generator))
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    return math.exp(float(edges[chosen] + place * (edges[chosen + 1] - edges[chosen])))
