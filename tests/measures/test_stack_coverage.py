from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import GROUPS, VENDORS
from monai_fedlora.measures.stack_coverage import no_volume_reasons


@cache
def phantom(group: str, vendor: str) -> tuple[np.ndarray, tuple[float, float, float]]:
    patient = make_patient(group, VENDORS[vendor], 5)
    return patient.mask.transpose(0, 3, 2, 1), patient.spacing


def reasons_of(
    mask: np.ndarray,
    spacing: tuple[float, float, float],
    *,
    values: tuple[int, int, int] = (1, 2, 3),
    oriented: bool = True,
    seen: tuple[int, float] = (0, 0.0),
) -> list[str]:
    return no_volume_reasons(torch.tensor(mask.copy()), list(spacing), list(values), oriented, *seen)


def without_slices(group: str, vendor: str, *, base_mm: float = 0.0, apex_mm: float = 0.0) -> tuple[np.ndarray, tuple]:
    mask, spacing = phantom(group, vendor)
    there = np.flatnonzero((mask[0] == 1).any(axis=(0, 1)))
    first = there[0] + round(base_mm / spacing[2]) if base_mm else 0
    last = there[-1] + 1 - round(apex_mm / spacing[2]) if apex_mm else mask.shape[3]
    return mask[..., first:last], spacing


@pytest.mark.parametrize("group", GROUPS)
def test_whole_phantoms_are_complete(group: str) -> None:
    mask, spacing = phantom(group, "A")
    assert reasons_of(mask, spacing) == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_cut_off_apex_is_named(group: str) -> None:
    mask, spacing = without_slices(group, "A", apex_mm=30)
    (reason,) = reasons_of(mask, spacing)
    assert "the apex is missing" in reason


@pytest.mark.parametrize("group", GROUPS)
def test_a_cut_off_base_is_named(group: str) -> None:
    mask, spacing = without_slices(group, "A", base_mm=45)
    assert any("the base may be missing" in reason for reason in reasons_of(mask, spacing))


def test_a_stack_in_unknown_order_is_judged_the_same() -> None:
    mask, spacing = without_slices("DCM", "A", apex_mm=30)
    expected = reasons_of(mask, spacing)
    assert reasons_of(mask[..., ::-1], spacing, oriented=False) == expected
    assert reasons_of(mask, spacing, oriented=False) == expected


def test_slices_without_a_mask_in_between_are_named() -> None:
    mask, spacing = phantom("NOR", "A")
    halved = mask.copy()
    halved[..., ::2] = 0
    assert any("between others" in reason for reason in reasons_of(halved, spacing))


@pytest.mark.parametrize("frames", [[0], [1], [0, 1]])
def test_a_phase_without_a_left_ventricle_is_named(frames: list[int]) -> None:
    mask, spacing = phantom("NOR", "A")
    empty = mask.copy()
    empty[frames] = 0
    assert reasons_of(empty, spacing) == ["the mask has no left ventricle at end-diastole or at end-systole"]


def test_the_left_ventricle_alone_is_enough() -> None:
    mask, spacing = phantom("NOR", "A")
    alone = np.where(mask == 1, 1, 0)
    assert reasons_of(alone, spacing, values=(1, 0, 0)) == []
    (reason,) = reasons_of(alone, spacing, values=(0, 0, 1))
    assert "judged by LV" in reason


def test_exchanged_frames_are_named() -> None:
    mask, spacing = phantom("NOR", "A")
    assert any("no smaller at end-systole" in reason for reason in reasons_of(mask[::-1], spacing))


@pytest.mark.parametrize("lacking", [0, 2, 4])
def test_a_ventricle_that_reaches_the_end_of_what_the_network_looks_at_is_named(lacking: int) -> None:
    mask, spacing = phantom("DCM", "A")
    there = np.flatnonzero((mask[0] > 0).any(axis=(0, 1)))
    around = 3
    long = np.pad(mask[..., there[0] : there[-1] + 1], [(0, 0)] * 3 + [(around, around)])
    count = long.shape[3]
    slices = count - lacking - 2 * around
    start = (count - slices) // 2
    long[..., :start] = 0
    long[..., start + slices :] = 0
    reasons = reasons_of(long, spacing, seen=(slices, spacing[2]))
    assert any(f"looks at {slices} of {count} slices" in reason for reason in reasons)
    assert not any("looks at" in reason for reason in reasons_of(long, spacing, seen=(count, spacing[2])))
