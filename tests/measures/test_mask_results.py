from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.measures.mask_results import heart_over_patients, measure_case, structures_over_patients
from tests.measures.shapes import short_axis

SPACING = (1.5, 1.5, 8.0)
NAMES = ("LV", "MYO", "RV")


def heart() -> np.ndarray:
    return np.stack([short_axis(), short_axis(cavity=16.0, wall=12.0)])


def result(found, truth, *, subject="p", **changes):
    settings = {"structures": NAMES, "phases": ("ED", "ES"), "spacing": SPACING} | changes
    return measure_case(found, truth, subject=subject, **settings)


def test_rows_hold_every_structure_and_phase_and_the_errors_of_all_numbers() -> None:
    truth = heart()
    found = truth.copy()
    found[1][truth[1] == 1] = 0
    case = result(found, truth)
    assert [(row["phase"], row["structure"]) for row in case.to_rows()] == [
        (phase, name) for phase in ("ED", "ES") for name in NAMES
    ]
    row = case.heart_row()
    assert row["lv_edv_ml_error"] == 0 and row["lv_ef_percent"] == 100
    assert row["lv_esv_ml_error"] == pytest.approx(-(truth[1] == 1).sum() * 0.018)
    assert row["lv_ef_percent_error"] == pytest.approx(100 - row["lv_ef_percent_truth"])


def test_summary_counts_missed_and_invented_structures() -> None:
    truth = heart()
    without = np.where(truth == 3, 0, truth)
    cases = [result(truth, truth), result(without, truth), result(truth, without), result(without, without)]
    rv = next(s for s in structures_over_patients(cases) if (s.structure, s.phase) == ("RV", "ED"))
    assert (rv.missed, rv.invented) == (1, 1)
    assert rv.dice is not None and (rv.dice.n, rv.dice.left_out) == (3, 1) and rv.dice.mean == pytest.approx(1 / 3)
    assert rv.hausdorff_95 is not None and (rv.hausdorff_95.n, rv.hausdorff_95.mean) == (1, 0.0)
    row = rv.to_row()
    assert row["dice_n"] == 3 and row["hausdorff_95_left_out"] == 3 and row["missed"] == 1


def test_a_structure_that_no_reference_holds_has_an_empty_row() -> None:
    truth = np.where(heart() == 3, 0, heart())
    rv = structures_over_patients([result(truth, truth)])[2].to_row()
    assert rv["structure"] == "RV" and rv["dice_mean"] is None and rv["hausdorff_95_n"] is None


def test_patients_with_fewer_outlined_structures_count_where_they_have_them() -> None:
    truth = heart()
    alone = result(truth, np.where(truth == 1, 1, 0), labelled=[True, True, False, False])
    cases = [result(truth, truth), alone]
    counts = {(s.structure, s.phase): s.dice.n for s in structures_over_patients(cases) if s.dice}
    assert counts["LV", "ED"] == 2 and counts["RV", "ES"] == 1
    compared = heart_over_patients(cases)
    assert compared["lv_ef"].n == 2 and compared["rv_ef"].n == 1 and compared["lv_ef"].bias == 0


def test_other_images_have_no_numbers_of_a_heart() -> None:
    mask = np.zeros((1, 20, 20), np.uint8)
    mask[0, 5:9, 5:9] = 1
    case = result(mask, mask, structures=("lesion",), phases=("image",), spacing=(1, 1))
    assert case.found is None and case.heart_row() == {"study": "p"} and heart_over_patients([case]) == {}
