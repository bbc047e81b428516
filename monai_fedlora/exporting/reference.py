"""Detect unusual images by their distance from the site's patients, with differential privacy for these patients.

A Mahalanobis distance (Lee et al., NeurIPS 2018) needs the mean and precision matrix of the features of the training
cases, from which these cases could be identified. Here only k + 1 noisy numbers come from the site:

1. Public images (mostly phantoms) and unusual images made from them choose k directions of feature space
   (:mod:`monai_fedlora.exporting.directions`), in which images of one scanner have a covariance near the identity.
2. The site's training and validation patients give a noisy mean in these directions and a noisy quantile of their
   distances from it (:mod:`monai_fedlora.exporting.private_statistics`). Several images of a patient are averaged.
3. The distance of an image is the Euclidean distance from that mean in these directions. It is unusual beyond a
   threshold: the noisy quantile times the ratio of two quantiles of public images.

The noise is drawn once per model and stored beside it (:mod:`monai_fedlora.exporting.kept_reference`), so that further
exports reveal nothing more; another copy of the same run draws the same noise. If the site's list has no patients, one
lesion or photograph is protected instead. What the weights themselves reveal is measured by the audit.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.directions import MIDDLE, QUANTILE, SOURCE, Directions, PublicFeatures, find_directions
from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.exporting.private_statistics import Budget, epsilon, private_mean, private_quantile

FEWEST_PATIENTS = 20
"""Fewest training and validation patients for a reference (ours)."""

DELTA = 1e-5
"""Delta at which the differential privacy of the statistics is stated (ours)."""

UNIT = (
    "one patient (lesion or photograph, where the site's list tells no patients) replaced by another, given the "
    "trained network"
)
FORM = "noisy mean in public directions"
METHOD = "assess"
"""The scripted model's method that returns logits and distances; ``forward`` returns the logits alone."""

ASSESSMENT = {
    "file": "models/model.ts",
    "call": f"{METHOD}, with the arguments of the model, returns logits (batch, classes) and distances (batch)",
}
"""Entries of the metadata on how to compute the distance."""

_REACH = 2.0
"""Largest distance of the site from the mean of the ordinary images, in units of the farthest of them (ours)."""

_RANGE = (0.25, 4.0)
"""Range of the quantile, in units of the spread of the ordinary images (ours)."""


@dataclass(frozen=True, kw_only=True)
class Place(ABC):
    """Where ordinary images lie in feature space.

    Attributes:
        directions: (D, k) float32, map from features to coordinates.
        location: (k,) float32, mean of ordinary images.
        threshold: distance within which about the share :data:`QUANTILE` of them lies.
        public: description of the public images that chose the directions.
    """

    directions: Tensor
    location: Tensor
    threshold: float
    public: str

    def distances(self, features: Tensor) -> Tensor:
        """Distances (N,) of inputs of the classification heads (N, D)."""
        return distances(features, self.directions, self.location)

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The entry ``out_of_distribution`` of the metadata, without the statistics themselves."""


@dataclass(frozen=True, kw_only=True)
class Reference(Place):
    """Where a site's patients lie; location and threshold are noisy.

    Attributes:
        training_cases: number of the site's training cases.
        validation_cases: number of the site's validation cases.
        patients: number of patients.
        deviation: standard deviation of the noise in each coordinate of ``location``, in units of the standard
            deviation of images of one scanner.
        rho: zCDP of all releases from this run's models, see :mod:`monai_fedlora.exporting.private_statistics`.
    """

    training_cases: int
    validation_cases: int
    patients: int
    deviation: float
    rho: float

    def to_json(self) -> dict[str, Any]:
        """The entry ``out_of_distribution`` of the metadata, without the statistics themselves."""
        return {
            "available": True,
            "form": FORM,
            "method": f"Euclidean distance from the patients' noisy mean in {self.directions.shape[1]} directions "
            f"({SOURCE}) of what the classification heads read",
            "threshold": self.threshold,
            "quantile": QUANTILE,
            "training_cases": self.training_cases,
            "validation_cases": self.validation_cases,
            "patients": self.patients,
            "directions": self.directions.shape[1],
            "directions_from": self.public,
            "noise": {
                "deviation": float(f"{self.deviation:.3g}"),
                "zcdp_rho": self.rho,
                "epsilon": float(f"{epsilon(self.rho, DELTA):.3g}"),
                "delta": DELTA,
                "unit": UNIT,
            },
            **ASSESSMENT,
        }


def unavailable(reason: str) -> dict[str, Any]:
    """The entry ``out_of_distribution`` of the metadata of a model without a reference."""
    return {"available": False, "reason": reason}


def distances(features: Tensor, directions: Tensor, location: Tensor) -> Tensor:
    """Euclidean distances (N,) of features (N, D) from a location (k,) in directions (D, k)."""
    return (features.to(directions.dtype) @ directions - location).square().sum(dim=1).sqrt()


def fit_reference(
    evidence: Evidence,
    public: PublicFeatures,
    *,
    description: str,
    generator: torch.Generator | None = None,
    budget: Budget | None = None,
) -> Reference:
    """Choose directions, and compute the noisy location and threshold of the site's patients.

    Args:
        evidence: outputs for the site's cases.
        public: inputs of the same network's heads for public images.
        description: of the public images.
        generator: of the noise, with a secret seed; None takes that of :func:`noise_generator`.
        budget: privacy budget; None takes the default.

    Raises:
        ExportError: nothing was kept, or there are too few patients or public images.
    """
    patients = check_patients(evidence)
    budget = budget or Budget()
    found = find_directions(public)
    generator = generator or noise_generator(evidence.noise_key, found, budget)
    placed = patients @ found.matrix - found.origin
    mean, deviation = private_mean(
        placed, radius=_REACH * found.radius, spread=found.spread, rho=budget.mean, generator=generator
    )
    middle = private_quantile(
        (placed - mean).norm(dim=1),
        share=MIDDLE,
        lowest=_RANGE[0] * found.spread,
        highest=_RANGE[1] * found.spread,
        rho=budget.quantile,
        generator=generator,
    )
    return Reference(
        directions=found.matrix.float(),
        location=(mean + found.origin).float(),
        threshold=float(f"{middle * found.tail:.4g}"),
        training_cases=len(evidence.features.get("training", ())),
        validation_cases=len(evidence.features.get("validation", ())),
        patients=len(patients),
        deviation=deviation,
        rho=budget.rho,
        public=description,
    )


def check_patients(evidence: Evidence) -> Tensor:
    """Mean inputs of the heads of training and validation patients: (patients, D) float64.

    Raises:
        ExportError: nothing was kept, the patients of the images are unknown, or there are too few patients.
    """
    if evidence.missing:
        raise ExportError(evidence.missing)
    splits = [split for split in ("training", "validation") if split in evidence.features]
    if unknown := [split for split in splits if split not in evidence.units]:
        raise ExportError(
            f"the run did not keep which {' and '.join(unknown)} images are of one patient, so that no noise is known "
            "to hide a patient; it was written by an earlier version, or trained on another kind of dataset: train it "
            "again for a reference"
        )
    parts = [_by_patient(evidence, split) for split in splits]
    patients = torch.cat(parts) if parts else torch.empty(0, 1)
    if len(patients) < FEWEST_PATIENTS:
        raise ExportError(
            f"the site has {len(patients)} training and validation patients with features, fewer than {FEWEST_PATIENTS}"
        )
    return patients


def _by_patient(evidence: Evidence, split: str) -> Tensor:
    """(patients, D) float64: the mean over each patient's images."""
    features = evidence.features[split].double()
    patients, which = evidence.units[split].unique(return_inverse=True)
    sums = features.new_zeros(len(patients), features.shape[1]).index_add(0, which, features)
    return sums / which.bincount(minlength=len(patients))[:, None]


def noise_generator(key: str | None, directions: Directions, budget: Budget) -> torch.Generator:
    """A generator with a secret seed that depends on the release, so that repeating it gives the same noise.

    Args:
        key: the run's secret; None for a run without one, for which every generator is different.
        directions: of the release.
        budget: of the release.
    """
    if key is None:
        return torch.Generator().manual_seed(secrets.randbits(63))
    values = [directions.radius, directions.spread, directions.tail, budget.mean, budget.quantile]
    digest = hashlib.sha256(json.dumps([key, values]).encode())
    for tensor in (directions.matrix, directions.origin):
        digest.update(tensor.double().contiguous().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(digest.digest()[:8], "big") >> 1)
