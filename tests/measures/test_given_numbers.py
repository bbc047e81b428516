from __future__ import annotations

import numpy as np

from monai_fedlora.measures.given_numbers import GIVEN_COLUMNS, given_numbers, shared_slices_reason
from tests.measures.shapes import short_axis

SPACING = (1.5, 1.5, 8.0)


def heart() -> np.ndarray:
    """(2, X, Y, Z) of a ventricle that ejects, becomes narrow at the apex, and has a right one beside it."""
    ed, es = short_axis(), short_axis(cavity=16.0, wall=12.0)
    found = np.stack([ed, es])
    found[..., -1] = np.where(found[..., -1] == 1, 2, found[..., -1])
    return found


def test_cells_are_numbers_or_the_reason_against_them() -> None:
    given = given_numbers(heart(), spacing=SPACING)
    row = dict(zip(GIVEN_COLUMNS, given.cells(), strict=True))
    assert given.function is not None and row["lv_ef_percent"] == f"{given.function.lv_ef:.2f}"
    assert row["no_volume_because"] == ""
    cut = given_numbers(heart()[..., :5], spacing=SPACING)
    row = dict(zip(GIVEN_COLUMNS, cut.cells(), strict=True))
    assert cut.function is None and "the apex is missing" in row.pop("no_volume_because") and not any(row.values())


def test_what_the_mask_does_not_show_counts_too() -> None:
    reason = shared_slices_reason(9, 8, 8)
    assert reason is not None and shared_slices_reason(8, 8, 8) is None
    given = given_numbers(heart(), spacing=SPACING, besides=[reason])
    assert given.function is None and given.no_volume_because == (reason,)


def test_slices_that_the_network_does_not_look_at_count_too() -> None:
    whole = heart()
    count = whole.shape[3]
    assert given_numbers(whole, spacing=SPACING, seen=(count, SPACING[2])).function is not None
    assert given_numbers(whole, spacing=SPACING, seen=(count - 2, SPACING[2])).function is None


def test_a_mask_without_a_left_ventricle_among_its_structures_has_no_volume() -> None:
    given = given_numbers(np.where(heart() == 3, 1, 0), spacing=SPACING, structures=("RV",))
    assert given.function is None and "judged by LV" in given.no_volume_because[0]
