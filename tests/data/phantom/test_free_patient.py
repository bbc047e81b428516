from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.phantom.free_patient import FreePatient, make_free_patient
from monai_fedlora.data.phantom.vendors import GROUPS


@pytest.fixture(scope="module")
def patients() -> list[FreePatient]:
    return [make_free_patient((2, number)) for number in range(5)]


def hardly_cut(patient: FreePatient) -> bool:
    """Whether the first and the last slice hold little of the heart at end diastole."""
    filled = patient.occupancy[0].sum((0, 2, 3))
    return bool(filled[[0, -1]].max() < 0.02 * filled.sum())


def test_shares_fill_what_the_truth_says(patients) -> None:
    whole = [patient for patient in patients if hardly_cut(patient)]
    assert whole
    for patient in whole:
        volumes = patient.occupancy.sum((2, 3, 4)) * np.prod(patient.spacing) / 1000
        told = np.array(
            [
                [patient.truth[name] for name in ("lv_ed_ml", "myo_ed_ml", "rv_ed_ml")],
                [patient.truth[name] for name in ("lv_es_ml", "myo_ed_ml", "rv_es_ml")],
            ]
        )
        assert volumes[:, :2] == pytest.approx(told[:, :2], rel=0.06, abs=3)
        assert (volumes[:, 2] < 1.06 * told[:, 2]).all()  # the RV may begin above the first slice
        assert (volumes[:, 2] > 0.75 * told[:, 2]).all()


def test_shares_and_levels_are_in_range(patients) -> None:
    for patient in patients:
        assert patient.occupancy.min() >= 0 and patient.occupancy.sum(1).max() <= 1 + 1e-4
        assert np.isfinite(patient.image).all() and patient.image.min() >= 0
        assert (patient.image == np.rint(patient.image)).all() and np.unique(patient.image).size > 30
        assert 1.0 <= patient.spacing[0] <= 2.2 and 5 <= patient.spacing[2] <= 11
        assert -1 <= patient.label < len(GROUPS)


def test_a_seed_is_a_patient(patients) -> None:
    again = make_free_patient((2, 1))
    assert np.array_equal(again.image, patients[1].image) and np.array_equal(again.occupancy, patients[1].occupancy)
    assert len({patient.truth["lv_ed_ml"] for patient in patients}) == len(patients)
