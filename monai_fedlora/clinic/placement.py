"""Where in the patient a displayed slice lies: its number, and the directions of its edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from monai_fedlora.clinic.reading import LoadedStudy

LEAST = 0.3
"""Smallest component of a direction that is named at an edge (ours)."""
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
    """Where the slices of the network's input lie in the study.

    Attributes:
        first: position of the network's first slice among the study's slices, numbered from 0; may lie outside.
        step: slices of the study per slice of the network.
        slices: number of slices of the study.
        edges: letters for the edges of every slice; None where the orientation is unknown.
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
        """A slice of the network, numbered from 0, as a slice of the study for display: "slice 4 of 9"."""
        number = min(max(round(self.first + self.step * seen), 0), self.slices - 1)
        return f"slice {number + 1} of {self.slices}"


def edge_letters(affine: np.ndarray) -> Edges:
    """Letters for the edges of a slice.

    Args:
        affine: (4, 4) voxel to world in mm (right, anterior, superior); in the picture the first axis runs to the
            right, the second downwards.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    across, down = axes[:, 0], axes[:, 1]
    return Edges(left=_letters(-across), right=_letters(across), top=_letters(-down), bottom=_letters(down))


def place(loaded: LoadedStudy, prepared: Tensor) -> Placement | None:
    """Find where the network's input lies in the study.

    Args:
        loaded: the study.
        prepared: (2, x, y, z), input of the network: the middle slices of the image, or all of them padded at the end.

    Returns:
        The placement; None for a photograph.
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
