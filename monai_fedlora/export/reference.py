"""How far an image lies from the site's own training cases, for the model to say so.

The vectors that the classification heads read of the training cases are described by their mean and a shrunk covariance
(Ledoit and Wolf, Journal of Multivariate Analysis 2004, doi 10.1016/S0047-259X(03)00096-4). The distance of a new image
is that of Mahalanobis, after Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
Adversarial Attacks", NeurIPS 2018, here with one mean for all classes (ours), so that a class too small for a mean of
its own does not matter.

These statistics are facts about the training cases. They are part of a site's own personal bundle alone, never of a
shared one, and an export can leave them out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.export.evidence import Evidence

FEWEST_CASES = 20
"""Training cases below which there is no reference (ours)."""

QUANTILE = 0.95
"""Of the site's own cases, the share that lies within the threshold (ours)."""

_FOLDS = 5
SOURCE = (
    "Mahalanobis distance from the training cases' mean (Lee et al., NeurIPS 2018; one mean for all classes) with the "
    "covariance of Ledoit and Wolf 2004, of what the classification heads read"
)
METHOD = "assess"
"""The scripted model's method that gives logits and distances; ``forward`` gives the logits alone."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The training cases of a site, as the network sees them.

    Attributes:
        mean: (D,) float32.
        precision: (D, D) float32, the inverse of the shrunk covariance.
        threshold: distance that :data:`QUANTILE` of the site's own cases stay within.
        training_cases: number of cases that mean and covariance are of.
        validation_cases: number of further cases that the threshold is of.
    """

    mean: Tensor
    precision: Tensor
    threshold: float
    training_cases: int
    validation_cases: int

    def to_json(self) -> dict[str, Any]:
        """For the metadata; the statistics themselves stay in the model."""
        return {
            "available": True,
            "method": SOURCE,
            "threshold": self.threshold,
            "quantile": QUANTILE,
            "training_cases": self.training_cases,
            "validation_cases": self.validation_cases,
            "file": "models/model.ts",
            "call": f"{METHOD}(image) returns logits (batch, classes) and distances (batch)",
        }


def unavailable(reason: str) -> dict[str, Any]:
    """What the metadata of a model without a reference say."""
    return {"available": False, "reason": reason}


def fit_reference(evidence: Evidence) -> Reference:
    """Describe the training cases.

    A distance of a case from statistics that it was part of would be too small. So the threshold is taken from the
    validation cases, and from the training cases with each fifth of them measured from the statistics of the others. It
    is the smallest distance that at least a share q of n + 1 exchangeable cases stays within, the (n + 1) q-th of the n
    distances, or the largest.

    Raises:
        ExportError: nothing was kept, or there are too few training cases.
    """
    if evidence.missing:
        raise ExportError(evidence.missing)
    training = evidence.features.get("training", torch.empty(0, 1)).double()
    if len(training) < FEWEST_CASES:
        raise ExportError(f"the site has {len(training)} training cases with features, fewer than {FEWEST_CASES}")
    validation = evidence.features.get("validation", training[:0]).double()
    mean, precision = _describe(training)
    found = [distances(validation, mean, precision)]
    for fold in range(_FOLDS):
        inside = torch.arange(len(training)) % _FOLDS != fold
        found.append(distances(training[~inside], *_describe(training[inside])))
    ordered = torch.cat(found).sort().values
    rank = min(math.ceil((len(ordered) + 1) * QUANTILE), len(ordered))
    return Reference(
        mean=mean.float(),
        precision=precision.float(),
        threshold=float(ordered[rank - 1]),
        training_cases=len(training),
        validation_cases=len(validation),
    )


def distances(features: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Mahalanobis distances (N,) of (N, D)."""
    centred = features - mean
    return ((centred @ precision) * centred).sum(dim=1).clamp(min=0.0).sqrt()


def _describe(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse shrunk covariance."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(features.numpy())
    factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(covariance))
    if int(failed):
        raise ExportError("the network sees training cases alike, so that no distance can be told")
    return features.mean(dim=0), torch.cholesky_inverse(factor)
