"""The distance of an image from public cases of patients, for a shared model.

A shared model belongs to no site whose patients could serve as a reference, and phantoms do not look like patients. If
public cases are given, the distance is measured from their mean, in the directions of
:mod:`monai_fedlora.exporting.directions`; no noise is needed because nothing is private. An image that resembles them
need not resemble the cases of the training sites, and vice versa.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.directions import QUANTILE, SOURCE, PublicFeatures, find_public_place
from monai_fedlora.exporting.reference import ASSESSMENT, Place

FEWEST_CASES = 20
"""Fewest public cases for a reference (ours), because the limit is a quantile of their distances."""

NO_PUBLIC = (
    "a shared model is of no site's cases; give cases that are public with --public-data for a distance from these"
)
FORM = "mean of public cases"


@dataclass(frozen=True, kw_only=True)
class PublicReference(Place):
    """Where public cases of patients lie.

    Attributes:
        cases: their number.
    """

    cases: int

    def to_json(self) -> dict[str, Any]:
        """The entry ``out_of_distribution`` of the metadata."""
        return {
            "available": True,
            "form": FORM,
            "method": f"Euclidean distance from the public cases' mean in {self.directions.shape[1]} directions "
            f"({SOURCE}) of what the classification heads read",
            "threshold": self.threshold,
            "quantile": QUANTILE,
            "public_cases": self.cases,
            "directions": self.directions.shape[1],
            "directions_from": self.public,
            **ASSESSMENT,
        }


def fit_public_reference(features: PublicFeatures, cases: Collection[str], *, description: str) -> PublicReference:
    """Compute the reference from public cases, in directions that they and phantoms choose.

    Args:
        features: inputs of the classification heads for all public images.
        cases: names of the groups that are cases of patients.
        description: of all public images.

    Raises:
        ExportError: there are too few cases, or too few public images of a scanner.
    """
    count = sum(len(features.ordinary[name]) for name in cases)
    if count < FEWEST_CASES:
        raise ExportError(f"{count} cases are public, fewer than {FEWEST_CASES}")
    matrix, location, limit = find_public_place(features, cases)
    return PublicReference(
        directions=matrix.float(),
        location=location.float(),
        threshold=float(f"{limit:.4g}"),
        public=description,
        cases=count,
    )
