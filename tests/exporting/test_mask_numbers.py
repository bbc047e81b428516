"""The exported module's numbers of a heart are those of the package's measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_fedlora.exporting.mask_numbers import COLUMNS, heart_numbers, no_volume
from monai_fedlora.measures.heart_function import heart_function
from monai_fedlora.measures.stack_coverage import stack_coverage
from monai_fedlora.measures.structures import HEART
from monai_fedlora.transforms.orientation import reference_affine

NAMES = ("lv_edv", "lv_esv", "lv_ef", "lv_mass", "rv_edv", "rv_esv", "rv_ef")
VALUES = [1, 2, 3]


def heart(*, first: int, last: int, scale: float = 1.0, gap: bool = False) -> Tensor:
    """Slices of an ellipsoid with a wall and a neighbour, (2, 24, 24, last - first)."""
    x, y, z = np.meshgrid(np.arange(24) - 9, np.arange(24) - 12, np.arange(12) - 2, indexing="ij")
    frames = []
    for size in (6.0 * scale, 4.0 * scale):
        radius = size * np.sqrt(np.clip(1 - (z / 8.5) ** 2, 0, 1))
        distance = np.hypot(x, y)
        mask = np.where(distance < radius, 1, np.where((distance < radius + 2) & (radius > 0), 2, 0))
        frames.append(np.where((mask == 0) & (np.hypot(x - 10, y) < radius / 2), 3, mask))
    found = np.stack(frames)
    if gap:
        found[..., 5] = 0
    return torch.from_numpy(found[..., first:last].astype(np.uint8))


@given(
    first=st.integers(0, 5), last=st.integers(7, 12), gap=st.booleans(), z=st.sampled_from([5.0, 8.0, 12.5]),
    order=st.permutations([0, 1, 2]), flips=st.lists(st.sampled_from([1, 2, 3]), unique=True), known=st.booleans(),
    slices=st.sampled_from([99, 9, 6]), step=st.sampled_from([5.0, 8.0, 10.0]),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_numbers_and_reasons_are_those_of_the_measures(
    first: int,
    last: int,
    gap: bool,
    z: float,
    order: list[int],
    flips: list[int],
    known: bool,
    slices: int,
    step: float,
) -> None:
    mask, spacing = heart(first=first, last=last, gap=gap), (1.5, 1.5, z)
    coverage = stack_coverage(mask, spacing=spacing, oriented=known, seen=(slices, step))
    affine = reference_affine(spacing) if known else torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    stored, placed = mask, affine
    if known:  # any order of the file is brought back by its affine
        stored = mask.permute(0, *(axis + 1 for axis in order))
        placed = affine[:, [*order, 3]].clone()
        for axis in flips:
            stored = stored.flip(axis)
            placed[:, 3] += placed[:, axis - 1] * (stored.shape[axis] - 1)
            placed[:, axis - 1] *= -1
    reason = no_volume(stored, placed, VALUES, slices, step)
    assert reason == "; ".join(coverage.reasons)
    row = heart_function(mask, spacing=spacing).to_row()
    found = heart_numbers(stored, placed, VALUES, not reason)
    assert found.isnan().all() if reason else found.tolist() == pytest.approx([row[name] for name in NAMES])


def test_structures_that_a_mask_has_not_have_no_numbers() -> None:
    found = heart_numbers(heart(first=0, last=12), reference_affine((1.5, 1.5, 8.0)), [1, 0, 0], True)
    assert [name for name, value in zip(COLUMNS, found.tolist(), strict=True) if value == value] == list(COLUMNS[:3])
    assert "LV" in no_volume(heart(first=0, last=12), reference_affine((1.5, 1.5, 8.0)), [0, 1, 2], 99, 8.0)
    assert HEART == ("LV", "MYO", "RV")


def test_structures_that_were_not_found_have_no_numbers_and_exchanged_frames_no_volume() -> None:
    mask, affine = heart(first=0, last=12), reference_affine((1.5, 1.5, 8.0))
    mask[0][mask[0] == 2] = 0
    mask[1][mask[1] == 3] = 0
    found = dict(zip(COLUMNS, heart_numbers(mask, affine, VALUES, True).tolist(), strict=True))
    assert [name for name, value in found.items() if value == value] == list(COLUMNS[:3])
    assert "no smaller at end-systole" in no_volume(heart(first=0, last=12).flip(0), affine, VALUES, 99, 8.0)


@pytest.mark.parametrize("slices", [12, 10, 8])
def test_a_ventricle_beyond_the_slices_that_the_network_looks_at_has_no_volume(slices: int) -> None:
    seen = heart(first=0, last=12)
    start = (12 - slices) // 2
    seen[..., :start] = 0
    seen[..., start + slices :] = 0
    reason = no_volume(seen, reference_affine((1.5, 1.5, 8.0)), VALUES, slices, 8.0)
    assert (f"looks at {slices} of 12 slices" in reason) == (slices < 12)
