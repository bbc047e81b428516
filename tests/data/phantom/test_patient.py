from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label as components

from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.render import LV, MYO, RV
from monai_fedlora.data.phantom.vendors import VENDORS


@pytest.mark.parametrize("code", VENDORS)
def test_arrays_have_the_vendors_geometry(code, scan) -> None:
    patient, vendor = scan("NOR", code), VENDORS[code]
    width, height = vendor.matrix[:: -1 if vendor.quarter_turns % 2 else 1]
    frames, slices, *plane = patient.image.shape
    assert frames == 2 and plane == [height, width] and vendor.slices[0] <= slices <= vendor.slices[1]
    assert patient.image.dtype == np.int16 and patient.image.min() >= 0
    assert patient.mask.dtype == np.uint8 and patient.mask.shape == patient.image.shape
    assert patient.spacing == (vendor.pixel, vendor.pixel, vendor.slice_distance)
    assert (patient.ed_frame, patient.es_frame) == (0, 1)


@pytest.mark.parametrize("code", VENDORS)
def test_the_whole_heart_is_in_the_picture_and_in_one_piece(code, scan) -> None:
    patient = scan("DCM", code)
    heart = patient.mask[0] > 0
    assert not heart[:, [0, -1]].any() and not heart[:, :, [0, -1]].any()
    assert components(heart)[1] == 1
    assert not heart[-1].any() or (patient.mask[0, -1] == MYO).sum() < (patient.mask[0, -2] == MYO).sum()


def test_the_ring_separates_the_ventricles(scan) -> None:
    patient = scan("NOR")
    for frame in patient.mask:
        near_lv = np.zeros(frame.shape, bool)
        lv = frame == LV
        near_lv[:, 1:] |= lv[:, :-1]
        near_lv[:, :-1] |= lv[:, 1:]
        near_lv[..., 1:] |= lv[..., :-1]
        near_lv[..., :-1] |= lv[..., 1:]
        assert set(np.unique(frame[near_lv & ~lv])) == {MYO}
        assert (frame == RV).any()


def test_blood_is_bright_and_muscle_grey_as_in_bssfp(scan) -> None:
    patient = scan("NOR")
    blood, muscle = (patient.image[0][patient.mask[0] == label] for label in (LV, MYO))
    assert np.median(blood) > 2 * np.median(muscle) > 4 * np.percentile(patient.image[0], 2)


def test_the_valve_plane_descends(scan) -> None:
    patient = scan("NOR")
    first = [np.flatnonzero((frame == LV).any((1, 2)))[0] for frame in patient.mask]
    assert first[1] > first[0]


def test_slices_are_shifted_against_each_other(scan) -> None:
    patient = scan("NOR")
    slices = np.flatnonzero((patient.mask[0] == MYO).any((1, 2)))[:-1]
    centres = np.array([np.argwhere(patient.mask[0, index] == MYO).mean(0) for index in slices]) * patient.spacing[0]
    bends = np.diff(centres, 2, axis=0)
    assert 0.5 < bends.std() < 8


def test_only_the_heart_moves(scan) -> None:
    patient = scan("NOR", "B")
    change = np.abs(patient.image[1].astype(float) - patient.image[0])
    moved = (patient.mask > 0).any(0)
    assert change[moved].mean() > 5 * change[:, :20].mean()


def test_a_seed_is_a_patient() -> None:
    first, again, other = (make_patient("MINF", VENDORS["D"], seed) for seed in ((3, 1), (3, 1), (3, 2)))
    assert first.image.tobytes() == again.image.tobytes() and first.mask.tobytes() == again.mask.tobytes()
    assert first.heart == again.heart != other.heart


def test_more_frames_make_a_beat_of_the_same_patient(volumes) -> None:
    beat = make_patient("NOR", VENDORS["D"], 1, frames=6)
    lv = volumes(beat)[:, 0]
    assert lv.argmin() == beat.es_frame and lv.argmax() == beat.ed_frame == 0
    assert beat.heart == make_patient("NOR", VENDORS["D"], 1).heart
