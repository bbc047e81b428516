"""What an evaluation on the files' own grid tells of all patients together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_fedlora.engines.native_results import NATIVE, case_numbers, native_limits, native_metrics
from monai_fedlora.measures.mask_results import CaseResult, measure_case
from monai_fedlora.measures.structures import HEART, PHASES
from monai_fedlora.tasks.segmentation import SEGMENTATION


def patient(number: int) -> CaseResult:
    """A square heart whose left ventricle the mask makes longer by one row than the reader does."""
    truth = np.zeros((2, 12, 12, 4), int)
    truth[:, 2:8, 2:10] = 2
    truth[:, 3:7, 3:9] = 1
    truth[1, 3:5, 3:9] = 2
    truth[:, 9:11, 2 : 4 + number % 3] = 3
    found = truth.copy()
    found[:, 3:7, 9] = np.where(found[:, 3:7, 9] == 2, 1, found[:, 3:7, 9])
    return measure_case(found, truth, subject=f"p{number}", structures=HEART, phases=PHASES, spacing=(1.0, 1.0, 10.0))


def test_every_number_is_on_the_list_of_what_may_leave_and_within_its_limits() -> None:
    metrics = native_metrics([patient(number) for number in range(6)], HEART)
    limits = native_limits(HEART)
    assert metrics.keys() == limits.keys()
    for name, value in metrics.items():
        assert value is not None, name
        assert limits[name][0] <= value <= limits[name][1]
    assert metrics["lv_edv_bias"] == pytest.approx(4 * 4 * 10 / 1000)
    assert metrics["lv_edv_low"] == pytest.approx(metrics["lv_edv_bias"])
    assert metrics["rv_edv_error"] == metrics["unmatched_LV_ED"] == 0
    assert metrics["native_dice_RV_ES"] == 1
    assert metrics["hausdorff_95_LV_ED"] == pytest.approx(1)


def test_fewer_than_five_patients_send_no_difference_of_volumes() -> None:
    """A mask without a voxel makes the bias of one patient the patient's volume."""
    metrics = native_metrics([patient(number) for number in range(4)], HEART)
    told = {name for name, value in metrics.items() if value is not None}
    assert told == {name for name in native_limits(HEART) if not name.startswith(("lv_", "rv_"))}


def test_a_patients_own_numbers_are_those_that_the_metrics_are_means_of() -> None:
    patients = [patient(number) for number in range(3)]
    rows = [case_numbers(case, HEART) for case in patients]
    metrics = native_metrics(patients, HEART)
    for name in rows[0]:
        assert metrics[name] == pytest.approx(np.mean([row[name] for row in rows])), name


def test_what_was_measured_on_the_files_stands_beside_a_case_s_score() -> None:
    """Masks that outline the left ventricle alone have columns for all structures too, as those of other sites have."""
    heart = patient(0)
    heart = replace(heart, overlaps=tuple(one for one in heart.overlaps if one.structure == "LV"))
    numbers = case_numbers(heart, HEART)
    assert {name for name, value in numbers.items() if value is None} == {
        f"{what}_{part}_{phase}"
        for what in ("native_dice", "hausdorff_95")
        for part in ("MYO", "RV")
        for phase in PHASES
    }
    assert numbers["native_dice"] == np.mean([one.dice for one in heart.overlaps])
    output = {"pred": torch.zeros(2, 4, 3, 3, 2), "label": torch.ones(2, 3, 3, 2, dtype=torch.uint8), NATIVE: numbers}
    assert SEGMENTATION.scores is not None
    assert SEGMENTATION.scores(output, HEART).items() >= numbers.items()
