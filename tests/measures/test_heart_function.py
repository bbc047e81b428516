from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import VENDORS
from monai_fedlora.errors import DataError
from monai_fedlora.measures.heart_function import (
    COLUMNS,
    UNITS,
    ejection_fraction,
    heart_function,
    number_cells,
    volumes_ml,
)

SPACING = (1.0, 2.0, 10.0)


def boxes() -> np.ndarray:
    """(2, X, Y, Z) with 50, 30, 40 voxels of LV, MYO, RV at ED, and 20, 30, 10 at ES."""
    mask = np.zeros((2, 200), np.uint8)
    mask[0, :50], mask[0, 50:80], mask[0, 80:120] = 1, 2, 3
    mask[1, :20], mask[1, 50:80], mask[1, 80:90] = 1, 2, 3
    return mask.reshape(2, 10, 5, 4)


def test_numbers_follow_from_counts_of_voxels() -> None:
    found = heart_function(boxes(), spacing=SPACING)
    assert found.to_row() == pytest.approx(
        {"lv_edv": 1.0, "lv_esv": 0.4, "lv_sv": 0.6, "lv_ef": 60.0, "lv_mass": 0.6 * 1.05}
        | {"rv_edv": 0.8, "rv_esv": 0.2, "rv_sv": 0.6, "rv_ef": 75.0}
    )
    assert list(found.to_row()) == list(UNITS)


def test_other_orders_of_structures_give_the_same() -> None:
    acdc = np.array([0, 3, 2, 1], np.uint8)[boxes()]
    assert heart_function(acdc, spacing=SPACING, structures=("RV", "MYO", "LV")) == heart_function(
        boxes(), spacing=SPACING
    )


def test_what_the_mask_does_not_outline_has_no_number() -> None:
    alone = heart_function(np.where(boxes() == 1, 1, 0), spacing=SPACING, labelled=[True, True, False, False])
    assert alone.lv_ef == pytest.approx(60) and alone.lv_mass is None and alone.rv_edv is None and alone.rv_ef is None
    assert heart_function(np.where(boxes() == 1, 1, 0), spacing=SPACING, structures=("LV",)) == alone
    assert alone.minus(heart_function(boxes(), spacing=SPACING))["lv_ef"] == 0
    assert alone.minus(heart_function(boxes(), spacing=SPACING))["rv_ef"] is None


def test_an_empty_ventricle_has_volumes_and_no_ejection_fraction() -> None:
    empty = heart_function(np.zeros((2, 4, 4, 3), int), spacing=SPACING)
    assert (empty.lv_edv, empty.lv_sv, empty.lv_ef) == (0.0, 0.0, None)
    assert ejection_fraction(edv=0.0, esv=3.0) is None


@pytest.mark.parametrize(("frame", "value"), [(0, 2), (0, 3), (1, 3)])
def test_a_structure_that_was_not_found_has_no_number_to_give(frame: int, value: int) -> None:
    mask = boxes()
    mask[frame][mask[frame] == value] = 0
    lost = {name for name, found in heart_function(mask, spacing=SPACING, possible=True).to_row().items() if not found}
    assert lost == ({"lv_mass"} if value == 2 else {"rv_edv", "rv_esv", "rv_sv", "rv_ef"})
    kept = heart_function(mask, spacing=SPACING).to_row()
    assert [kept[name] for name in sorted(lost)].count(0.0) >= 1  # a comparison with a reference takes it as found


def test_a_right_ventricle_that_grows_has_no_number_to_give() -> None:
    mask = boxes()[::-1]
    found = heart_function(mask, spacing=SPACING, possible=True)
    assert found.rv_edv is None and found.rv_ef is None and found.lv_edv == pytest.approx(0.4)
    assert heart_function(mask, spacing=SPACING).rv_edv == pytest.approx(0.2)


def test_cells_have_two_digits_and_columns_with_units() -> None:
    cells = dict(zip(COLUMNS, number_cells({"lv_edv": 151.239, "rv_ef": 50.0, "lv_mass": None}), strict=True))
    assert {name: cell for name, cell in cells.items() if cell} == {"lv_edv_ml": "151.24", "rv_ef_percent": "50.00"}
    assert "lv_mass_g" in cells


def test_phantoms_have_the_volumes_they_were_made_with() -> None:
    patient = make_patient("DCM", VENDORS["A"], 5)
    found = heart_function(patient.mask.transpose(0, 3, 2, 1), spacing=patient.spacing)
    heart = patient.heart
    assert found.lv_edv == pytest.approx(heart.lv_volume, rel=0.03)
    assert found.lv_ef == pytest.approx(100 * heart.lv_ejection, abs=2)
    assert found.rv_edv == pytest.approx(heart.rv_volume, rel=0.03)


def test_volumes_of_a_moving_heart() -> None:
    mask = np.concatenate([boxes(), boxes()[::-1]])
    assert volumes_ml(mask, spacing=SPACING)[:, 0] == pytest.approx([1.0, 0.4, 0.4, 1.0])
    with pytest.raises(DataError, match="4 axes"):
        volumes_ml(mask[0], spacing=SPACING)
