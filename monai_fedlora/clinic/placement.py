"""Where in the patient a picture lies: which of the slices it is, and which way its edges point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from monai_fedlora.clinic.reading import LoadedStudy

LEAST = 0.3
"""Share of a direction that is named at an edge (ours)."""
NO_MARKERS = "right and left are not marked, because the file does not say how the patient lay"
_NAMES = (("R", "L"), ("A", "P"), ("H", "F"))
KNOWN, PLACEHOLDER = "known", "placeholder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Letters at the edges of a picture whose columns run to the right and rows downwards, the larger share first.

    R and L are the patient's right and left, A and P front and back, H and F head and feet.
    """

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the slices that the network saw lie.

    Attributes:
        first: number, from 0, of the study's slice that the network's first lies nearest to; may lie outside.
        step: slices of the study per slice of the network.
        slices: of the study.
        edges: of every slice; None where the file does not say how the patient lay.
    """

    first: float
    step: float
    slices: int
    edges: Edges | None

    @property
    def orientation(self) -> str:
        """Either "known" or "placeholder"."""
        return PLACEHOLDER if self.edges is None else KNOWN

    def called(self, seen: int) -> str:
        """A slice of the network, from 0, as people count the study's: "slice 4 of 9"."""
        number = min(max(round(self.first + self.step * seen), 0), self.slices - 1)
        return f"slice {number + 1} of {self.slices}"


def edge_letters(affine: np.ndarray) -> Edges:
    """Which way the edges of a slice point.

    Args:
        affine: (4, 4) voxel to world in mm (right, anterior, superior); in the picture the first axis runs to the
            right, the second downwards.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    across, down = axes[:, 0], axes[:, 1]
    return Edges(left=_letters(-across), right=_letters(across), top=_letters(-down), bottom=_letters(down))


def place(loaded: LoadedStudy, prepared: Tensor) -> Placement | None:
    """Find where what the network saw lies in the study.

    Args:
        loaded: the study.
        prepared: (2, x, y, z), what the network saw of its image: in depth the image's middle, or all of it from the
            first slice on.

    Returns:
        None for a photograph.
    """
    if loaded.cine is None or loaded.cine_affine is None or loaded.image_affine is None:
        return None
    start = max(loaded.image.shape[3] - prepared.shape[3], 0) // 2
    to_study = np.linalg.inv(loaded.cine_affine) @ loaded.image_affine
    return Placement(
        first=float(to_study[2, 2] * start + to_study[2, 3]),
        step=float(to_study[2, 2]),
        slices=loaded.cine.shape[2],
        edges=edge_letters(loaded.image_affine) if loaded.orientation == KNOWN else None,
    )


def _letters(direction: np.ndarray) -> str:
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(_NAMES[axis][int(direction[axis] < 0)] for axis in order if abs(direction[axis]) >= LEAST)
