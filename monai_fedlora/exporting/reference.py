"""How far an image lies from what a site's patients look like to its model, without telling who they were.

A mean and a precision matrix of what the heads read of n training cases, as Mahalanobis distances want them (Lee et
al., NeurIPS 2018), identify these cases. Here the site adds k + 1 numbers with noise to a map that was made without it:

1. Public images, phantoms for the most part, and content that the model was not made for choose k directions
   (:mod:`monai_fedlora.exporting.directions`), in which images of one scanner have a covariance near the identity.
2. The site's patients say where in these directions they lie, as a noisy mean, and how far out they reach, as a noisy
   quantile (:mod:`monai_fedlora.exporting.private_statistics`). Members are training and validation patients; several
   images of a patient count as their mean.
3. The distance of an image is the Euclidean one from that mean in these directions; beyond the quantile times what
   public images say of their tail it is called unusual.

The noise is drawn once for a model and kept beside it (:mod:`monai_fedlora.exporting.kept_reference`), so that
exporting again tells nothing more; a copy of the run that is exported elsewhere draws the same. Where the site's list
tells no patients, what is protected is one lesion or photograph. What the weights themselves tell is another matter,
see the audit.
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
"""Training and validation patients below which there is no reference (ours)."""

DELTA = 1e-5
"""For which the differential privacy of the statistics is stated (ours)."""

UNIT = (
    "one patient (lesion or photograph, where the site's list tells no patients) replaced by another, given the "
    "trained network"
)
FORM = "noisy mean in public directions"
METHOD = "assess"
"""The scripted model's method that gives logits and distances; ``forward`` gives the logits alone."""

ASSESSMENT = {
    "file": "models/model.ts",
    "call": f"{METHOD}, with the arguments of the model, returns logits (batch, classes) and distances (batch)",
}
"""Where in a bundle the distance is, for its metadata."""

_REACH = 2.0
"""The site may lie this many times as far from the mean of the ordinary images as the farthest of them (ours)."""

_RANGE = (0.25, 4.0)
"""The quantile is looked for between these multiples of the spread of the ordinary images (ours)."""


@dataclass(frozen=True, kw_only=True)
class Place(ABC):
    """Where images that are nothing unusual lie, as the network sees them.

    Attributes:
        directions: (D, k) float32.
        location: (k,) float32, of their mean.
        threshold: distance that about :data:`QUANTILE` of them stay within.
        public: what the directions were chosen from.
    """

    directions: Tensor
    location: Tensor
    threshold: float
    public: str

    def distances(self, features: Tensor) -> Tensor:
        """(N,) of what the heads read, (N, D)."""
        return distances(features, self.directions, self.location)

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """For the metadata; the statistics themselves stay in the model."""


@dataclass(frozen=True, kw_only=True)
class Reference(Place):
    """A site's patients, as the network sees them; mean and threshold with noise.

    Attributes:
        training_cases: of the site.
        validation_cases: of the site.
        patients: whose images these are.
        deviation: standard deviation of the noise in each coordinate of ``location``, in units of the spread of images
            of one scanner in one direction.
        rho: zCDP of all releases from this run's models, see :mod:`monai_fedlora.exporting.private_statistics`.
    """

    training_cases: int
    validation_cases: int
    patients: int
    deviation: float
    rho: float

    def to_json(self) -> dict[str, Any]:
        """For the metadata; the statistics themselves stay in the model."""
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
    """What the metadata of a model without a reference say."""
    return {"available": False, "reason": reason}


def distances(features: Tensor, directions: Tensor, location: Tensor) -> Tensor:
    """Euclidean distances (N,) of (N, D) from a place (k,) in directions (D, k)."""
    return (features.to(directions.dtype) @ directions - location).square().sum(dim=1).sqrt()


def fit_reference(
    evidence: Evidence,
    public: PublicFeatures,
    *,
    description: str,
    generator: torch.Generator | None = None,
    budget: Budget | None = None,
) -> Reference:
    """Choose directions, and place the site's patients in them with noise.

    Args:
        evidence: of the site.
        public: what the same network's heads read of public images.
        description: of the public images.
        generator: of the noise; from the machine's own randomness. None takes the one of the run's own secret, or a
            new one for a run without.
        budget: of the noise; None takes the default.

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
    """What the heads read of training and validation patients, (patients, D) float64.

    Raises:
        ExportError: nothing was kept, it is not known whose images they are, or there are too few patients.
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
    """A generator that nobody can guess, and that draws the same for the same release alone.

    Args:
        key: the run's own secret; None for a run without, whose every generator is another.
        directions: in which the patients are placed.
        budget: of the noise.
    """
    if key is None:
        return torch.Generator().manual_seed(secrets.randbits(63))
    values = [directions.radius, directions.spread, directions.tail, budget.mean, budget.quantile]
    digest = hashlib.sha256(json.dumps([key, values]).encode())
    for tensor in (directions.matrix, directions.origin):
        digest.update(tensor.double().contiguous().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(digest.digest()[:8], "big") >> 1)
