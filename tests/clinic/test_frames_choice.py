"""End-diastole and end-systole without a mask: against hearts whose frames are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.clinic.dicom_headers import read_image_headers
from monai_fedlora.clinic.dicom_pixels import read_voxels
from monai_fedlora.clinic.dicom_stack import find_stack
from monai_fedlora.clinic.frames_choice import blood_areas, choose_frames
from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import VENDORS
from monai_fedlora.errors import DataError
from monai_fedlora.studies.zipped import study_files
from tests.clinic.cine_studies import ES_FRAME, beating_heart

SPACING = 4.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "vendor"), [("NOR", "A"), ("HCM", "B"), ("DCM", "C"), ("RV", "D"), ("NOR", "D"), ("MINF", "B")]
)
def test_frames_of_a_phantom_are_found_within_one(group: str, vendor: str) -> None:
    patient = make_patient(group, VENDORS[vendor], 0, frames=12)
    choice = choose_frames(patient.image.transpose(3, 2, 1, 0), spacing_mm=patient.spacing[0])
    assert choice.ed == patient.ed_frame == 0
    assert abs(choice.es - patient.es_frame) <= 1
    assert len(choice.areas) == 12


def test_frames_of_a_beating_heart_are_found_exactly() -> None:
    choice = choose_frames(beating_heart(), spacing_mm=SPACING)
    assert (choice.ed, choice.es, choice.doubts) == (0, ES_FRAME, ())
    assert "first frame after the R wave" in choice.how


@pytest.mark.parametrize("gain", [0.01, 30.0])
def test_gain_and_offset_do_not_matter(gain: float) -> None:
    cine = beating_heart().astype(np.float32)
    plain = choose_frames(cine, spacing_mm=SPACING)
    changed = choose_frames(gain * cine - 5.0, spacing_mm=SPACING)
    assert (changed.ed, changed.es) == (plain.ed, plain.es)
    np.testing.assert_allclose(changed.areas, plain.areas, atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_orientation_does_not_matter(axis: int) -> None:
    choice = choose_frames(np.flip(beating_heart(), axis).copy(), spacing_mm=SPACING)
    assert (choice.ed, choice.es) == (0, ES_FRAME)


@pytest.mark.parametrize("delay", [3, 5])
def test_after_a_delayed_trigger_end_diastole_is_the_fullest_frame(delay: int) -> None:
    """A beat that starts in the middle of systole: full again only at its end."""
    cine = np.roll(beating_heart(frames=12), -delay, axis=3)
    choice = choose_frames(cine, spacing_mm=SPACING)
    assert choice.es == (ES_FRAME - delay) % 12
    assert min(abs(choice.ed - full % 12) for full in (8 - delay, 9 - delay, 10 - delay, 11 - delay, 12 - delay)) == 0
    assert "largest area" in choice.how


def test_few_frames_are_doubted() -> None:
    choice = choose_frames(beating_heart()[..., ::2], spacing_mm=SPACING)
    assert (choice.ed, choice.es) == (0, ES_FRAME // 2)
    assert any("5 frames are few" in doubt for doubt in choice.doubts)


def test_a_heart_that_hardly_moves_is_doubted() -> None:
    weak = beating_heart(contraction=0.02, frames=12)
    assert any("hardly changes" in doubt for doubt in choose_frames(weak, spacing_mm=SPACING).doubts)


def test_systole_at_an_unusual_time_is_doubted() -> None:
    late = beating_heart(frames=30)[..., np.r_[9:27, 0:5]]
    doubts = choose_frames(late, spacing_mm=SPACING).doubts
    assert any("unusual time" in doubt for doubt in doubts)


def test_given_frames_are_taken() -> None:
    choice = choose_frames(beating_heart(), spacing_mm=SPACING, given=(9, 5))
    assert (choice.ed, choice.es, choice.how) == (9, 5, "given")


@pytest.mark.parametrize("given", [(0, 0), (0, 10), (-1, 3)])
def test_given_frames_that_cannot_be_are_refused(given: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="frames 0 to 9"):
        choose_frames(beating_heart(), spacing_mm=SPACING, given=given)


def test_one_frame_is_no_cine() -> None:
    with pytest.raises(DataError, match="one frame"):
        choose_frames(beating_heart()[..., :1], spacing_mm=SPACING)


def test_a_picture_without_any_motion_is_refused() -> None:
    with pytest.raises(DataError, match="nothing in this cine moves"):
        choose_frames(np.repeat(beating_heart()[..., :1], 12, axis=3), spacing_mm=SPACING)


def test_area_is_the_share_of_the_region_that_blood_leaves() -> None:
    """A disc of blood that loses half of its area: what changes is the ring between the two, of a disc of 60 mm."""
    x, y = np.meshgrid(np.arange(96) - 48, np.arange(96) - 48, indexing="ij")
    frames = [100.0 + 300.0 * (np.hypot(x, y) < radius) for radius in (20, 14)]
    cine = np.repeat(np.stack(frames, axis=-1)[:, :, None], 4, axis=2)
    np.testing.assert_allclose(blood_areas(cine, spacing_mm=1.5), [(20**2 - 14**2) / 40**2, 0.0], rtol=0.03)


@pytest.mark.realdata
def test_real_frames_are_those_that_experts_contoured(real_data: Path) -> None:
    """The study is SC-HF-I-04; its contours are on frames 19 and 6, and frame 19 is followed by frame 0."""
    folder = real_data / "sunnybrook_dicom" / "SCD0000301"
    with study_files(folder) as files:
        stack = find_stack(read_image_headers(files, folder), folder)
        choice = choose_frames(read_voxels(stack), spacing_mm=stack.images[0][0].spacing[0])
    assert stack.shape == (256, 256, 10, 20)
    assert min((choice.ed - 19) % 20, (19 - choice.ed) % 20) <= 1
    assert abs(choice.es - 6) <= 1
    assert stack.doubts == choice.doubts == ()
