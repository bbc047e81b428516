from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import GROUPS, VENDORS
from monai_fedlora.errors import DataError
from monai_fedlora.measures.stack_coverage import APEX_SHARE, stack_coverage


@cache
def phantom(group: str, vendor: str) -> tuple[np.ndarray, tuple[float, float, float]]:
    patient = make_patient(group, VENDORS[vendor], 5)
    return patient.mask.transpose(0, 3, 2, 1), patient.spacing


def without_slices(group: str, vendor: str, *, base_mm: float = 0.0, apex_mm: float = 0.0) -> tuple[np.ndarray, tuple]:
    mask, spacing = phantom(group, vendor)
    there = np.flatnonzero((mask[0] == 1).any(axis=(0, 1)))
    first = there[0] + round(base_mm / spacing[2]) if base_mm else 0
    last = there[-1] + 1 - round(apex_mm / spacing[2]) if apex_mm else mask.shape[3]
    return mask[..., first:last], spacing


@pytest.mark.parametrize("group", GROUPS)
def test_whole_phantoms_are_complete(group: str) -> None:
    mask, spacing = phantom(group, "A")
    found = stack_coverage(mask, spacing=spacing)
    assert found.complete and found.reasons == () and found.apex_share < APEX_SHARE


@pytest.mark.parametrize("group", GROUPS)
def test_a_cut_off_apex_is_named(group: str) -> None:
    mask, spacing = without_slices(group, "A", apex_mm=30)
    (reason,) = stack_coverage(mask, spacing=spacing).reasons
    assert "the apex is missing" in reason


@pytest.mark.parametrize("group", GROUPS)
def test_a_cut_off_base_is_named(group: str) -> None:
    mask, spacing = without_slices(group, "A", base_mm=45)
    found = stack_coverage(mask, spacing=spacing)
    assert any("the base may be missing" in reason for reason in found.reasons)


def test_a_stack_in_unknown_order_is_judged_the_same() -> None:
    mask, spacing = without_slices("DCM", "A", apex_mm=30)
    expected = stack_coverage(mask, spacing=spacing)
    assert stack_coverage(mask[..., ::-1], spacing=spacing, oriented=False) == expected
    assert stack_coverage(mask, spacing=spacing, oriented=False) == expected


def test_slices_without_a_mask_in_between_are_named() -> None:
    mask, spacing = phantom("NOR", "A")
    halved = mask.copy()
    halved[..., ::2] = 0
    assert any("between others" in reason for reason in stack_coverage(halved, spacing=spacing).reasons)


@pytest.mark.parametrize("frames", [[0], [1], [0, 1]])
def test_a_phase_without_a_left_ventricle_is_named(frames: list[int]) -> None:
    mask, spacing = phantom("NOR", "A")
    empty = mask.copy()
    empty[frames] = 0
    found = stack_coverage(empty, spacing=spacing)
    assert found.reasons == ("the mask has no left ventricle at end-diastole or at end-systole",)


def test_the_left_ventricle_alone_is_enough() -> None:
    mask, spacing = phantom("NOR", "A")
    alone = np.where(mask == 1, 1, 0)
    assert stack_coverage(alone, spacing=spacing, structures=("LV",)).complete
    with pytest.raises(DataError, match="judged by LV"):
        stack_coverage(alone, spacing=spacing, structures=("RV",))
