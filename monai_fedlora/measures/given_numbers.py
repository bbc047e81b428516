"""The numbers of a heart that are given to a reader, or why there is no volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from monai_fedlora.measures.heart_function import (
    COLUMNS,
    HeartFunction,
    heart_function,
    number_cells,
    values_in,
)
from monai_fedlora.measures.masks import checked_mask, checked_spacing
from monai_fedlora.measures.stack_coverage import no_volume_reasons
from monai_fedlora.measures.structures import HEART

REASON = "no_volume_because"
"""Column of the reasons in every table of studies."""

GIVEN_COLUMNS = (*COLUMNS, REASON)
"""Columns of :meth:`GivenNumbers.cells`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenNumbers:
    """What is said of a heart's size and function.

    Attributes:
        function: the numbers; None where no volume can be given.
        no_volume_because: why, as sentences without a full stop; empty if there are numbers.
    """

    function: HeartFunction | None
    no_volume_because: tuple[str, ...]

    def cells(self) -> list[str]:
        """Cells of :data:`GIVEN_COLUMNS`."""
        row = None if self.function is None else self.function.to_row()
        return [*number_cells(row), "; ".join(self.no_volume_because)]


def given_numbers(
    mask: Any,
    *,
    spacing: Sequence[float],
    structures: Sequence[str] = HEART,
    oriented: bool = True,
    seen: tuple[int, float] | None = None,
    besides: Sequence[str] = (),
) -> GivenNumbers:
    """Measure masks that a network has found.

    A stack that does not cover the left ventricle gives no number, see :mod:`monai_fedlora.measures.stack_coverage`,
    nor does a structure that was not found, see :func:`monai_fedlora.measures.heart_numbers.without_impossible`.

    Args:
        mask: (2, X, Y, Z) end-diastole and end-systole, whole numbers, slices from base to apex.
        spacing: (x, y, z) in mm, z the slice distance.
        structures: names of the values from 1.
        oriented: whether the slices run from base to apex for certain.
        seen: number of slices that the network looks at, and their distance in mm; None for a mask of the whole stack.
        besides: reasons against a volume that the mask does not show, such as :func:`shared_slices_reason`.

    Raises:
        DataError: the mask or the voxel size cannot be used.
    """
    sizes = list(checked_spacing(spacing, axes=3))
    found = torch.from_numpy(checked_mask(mask, structures, axes=4))
    slices, step = (0, 0.0) if seen is None else seen
    reasons = (
        *besides,
        *no_volume_reasons(found, sizes, values_in(structures), oriented, slices, step),
    )
    if reasons:
        return GivenNumbers(function=None, no_volume_because=reasons)
    function = heart_function(mask, spacing=spacing, structures=structures, possible=True)
    return GivenNumbers(function=function, no_volume_because=())


def shared_slices_reason(ed: int, es: int, shared: int) -> str | None:
    """Why frames that do not share all of their slices have no volume; None if they do.

    Args:
        ed, es: numbers of slices.
        shared: number of slices at the same position, which alone a network looks at.
    """
    if ed == es == shared:
        return None
    return f"end-diastole has {ed} slices and end-systole {es}, and only the {shared} that they share were outlined"
