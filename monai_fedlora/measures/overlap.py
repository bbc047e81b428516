"""Compare a mask with a reference: Dice coefficient and Hausdorff distance of each structure and phase.

Empty masks follow one rule. If a structure is in neither mask of a phase, they agree, but that says nothing about its
border: Dice and distance are undefined, and left out of means (as in nnU-Net's evaluation). If it is in one mask alone,
Dice is 0 and the distance is undefined, because there is no surface to measure from; means of distances leave it out,
so that the number of such masks has to be read beside them (`missed` and `invented` of a summary).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from monai_fedlora.errors import DataError
from monai_fedlora.measures.masks import checked_mask, checked_spacing

PERCENTILE = 95.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Agreement of one structure in one phase.

    Attributes:
        structure: its name.
        phase: for example "ED".
        dice: 2 |A and B| / (|A| + |B|) in [0, 1]; None if the structure is in neither mask.
        hausdorff_95: the larger of the two 95th percentiles of the distances from the border of one mask to that of the
            other, in the unit of the spacing (mm); None unless the structure is in both masks.
        found: number of voxels in the mask.
        truth: number of voxels in the reference.
    """

    structure: str
    phase: str
    dice: float | None
    hausdorff_95: float | None
    found: int
    truth: int

    @property
    def missed(self) -> bool:
        """Whether the structure is in the reference alone."""
        return self.truth > 0 and not self.found

    @property
    def invented(self) -> bool:
        """Whether the structure is in the mask alone."""
        return self.found > 0 and not self.truth

    def to_row(self) -> dict[str, Any]:
        """The attributes by name, for a table."""
        return {
            "structure": self.structure,
            "phase": self.phase,
            "dice": self.dice,
            "hausdorff_95": self.hausdorff_95,
            "voxels_found": self.found,
            "voxels_truth": self.truth,
        }


def compare_masks(
    found: Any,
    truth: Any,
    *,
    structures: Sequence[str],
    phases: Sequence[str],
    spacing: Sequence[float],
    labelled: Sequence[bool] | None = None,
) -> tuple[Overlap, ...]:
    """Compare a mask with a reference, over all voxels.

    Args:
        found: (F, X, Y, Z) or (F, H, W) whole numbers, array or tensor: 0 background, 1 to K the structures.
        truth: the reference on the same grid.
        structures: names of the K structures.
        phases: names of the F frames.
        spacing: size of a voxel along each spatial axis, slice distance included, in mm; 1 for pixels.
        labelled: for the background and each structure whether the reference outlines it; structures that it does not
            outline are left out. None: it outlines all.

    Returns:
        One for each phase and outlined structure, phase by phase.

    Raises:
        DataError: the masks lie on different grids, hold values that are no structure, or a number of names is wrong.
    """
    axes = len(spacing) + 1
    sizes = checked_spacing(spacing, axes=axes - 1)
    ours = checked_mask(found, structures, axes=axes)
    theirs = checked_mask(truth, structures, axes=axes, name="the reference mask")
    if ours.shape != theirs.shape:
        raise DataError(
            f"the mask has the shape {ours.shape} and the reference {theirs.shape}; masks are compared on the grid of "
            "the image file, so bring the mask back to it first"
        )
    if len(phases) != len(ours) or (labelled is not None and len(labelled) != len(structures) + 1):
        raise DataError(
            f"{len(ours)} frames and {len(structures)} structures need as many names of phases ({len(phases)} given) "
            f"and {len(structures) + 1} marks for what the reference outlines, the background's first"
        )
    outlined = [n for n in range(1, len(structures) + 1) if labelled is None or bool(labelled[n])]
    return tuple(
        _compare(a == value, b == value, structure=structures[value - 1], phase=phase, spacing=sizes)
        for phase, a, b in zip(phases, ours, theirs, strict=True)
        for value in outlined
    )


def _compare(
    found: np.ndarray, truth: np.ndarray, *, structure: str, phase: str, spacing: tuple[float, ...]
) -> Overlap:
    from monai.metrics.meandice import compute_dice

    ours, theirs = int(found.sum()), int(truth.sum())
    dice = distance = None
    if ours or theirs:
        a, b = (torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (found, truth))
        dice = float(compute_dice(a, b, ignore_empty=False)[0, 0])
        distance = _distance(a, b, spacing) if ours and theirs else None
    return Overlap(structure=structure, phase=phase, dice=dice, hausdorff_95=distance, found=ours, truth=theirs)


def _distance(found: torch.Tensor, truth: torch.Tensor, spacing: tuple[float, ...]) -> float:
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)  # MONAI warns of its own call
        distances = compute_hausdorff_distance(
            found, truth, include_background=True, percentile=PERCENTILE, spacing=spacing
        )
    return float(distances[0, 0])
