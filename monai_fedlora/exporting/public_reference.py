"""How far an image lies from public images of patients, for a model that is of no site's cases.

A shared model has no patients whose place could be told, and phantoms look like none. Where its maker gives cases that
are public, they stand in: the distance is measured from their mean, in directions that
:mod:`monai_fedlora.exporting.directions` chooses, and there is no noise because nothing is private. What is like them
need not be like the cases of the training sites, and the other way round.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.directions import QUANTILE, SOURCE, PublicFeatures, find_public_place
from monai_fedlora.exporting.reference import ASSESSMENT, Place

FEWEST_CASES = 20
"""Public cases below which there is no reference (ours): the limit is a quantile of them."""

NO_PUBLIC = (
    "a shared model is of no site's cases; give cases that are public with --public-data for a distance from these"
)
FORM = "mean of public cases"


@dataclass(frozen=True, kw_only=True)
class PublicReference(Place):
    """Public images of patients, as the network sees them.

    Attributes:
        cases: how many.
    """

    cases: int

    def to_json(self) -> dict[str, Any]:
        """For the metadata."""
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
    """Place public cases in directions that they and phantoms choose.

    Args:
        features: what the network's heads read of all public images.
        cases: names of the groups that are cases of patients.
        description: of all of them.

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
