"""The wrong kind of image is noticed, and the right kind is left in peace."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from monai_fedlora.clinic.dicom_headers import read_image_headers
from monai_fedlora.clinic.dicom_pixels import read_voxels
from monai_fedlora.clinic.dicom_stack import find_stack
from monai_fedlora.clinic.plausible import affine_doubts, cine_doubts, photograph_doubts, view_doubts
from monai_fedlora.data.phantom.geometry import draw_directions
from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import VENDORS
from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
from monai_fedlora.data.photo_phantom.dermoscopy import make_dermoscopy
from monai_fedlora.data.photo_phantom.fundus import make_fundus
from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS
from monai_fedlora.formats.photograph_file import read_photograph
from tests.clinic.cine_studies import ES_FRAME, SPACING, affine_of, beating_heart


def pair() -> np.ndarray:
    cine = beating_heart().astype(np.float32)
    return np.stack([cine[..., 0], cine[..., ES_FRAME]])


def skin(**changes: float) -> np.ndarray:
    """(3, 60, 80) noise around the colour of skin."""
    colour = {"red": 0.75, "green": 0.55, "blue": 0.5} | changes
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 60, 80))
    return np.clip(np.array(list(colour.values()))[:, None, None] + noise, 0, 1).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", sorted(VENDORS))
@pytest.mark.parametrize("group", ["NOR", "DCM"])
def test_phantom_hearts_raise_no_doubt(group: str, vendor: str) -> None:
    patient = make_patient(group, VENDORS[vendor], 1)
    assert cine_doubts(patient.image.transpose(0, 3, 2, 1), spacing=patient.spacing) == []


@pytest.mark.parametrize(("slice_mm", "covered"), [(5.0, "30 mm"), (40.0, "240 mm")])
def test_stack_that_covers_too_little_or_too_much_is_doubted(slice_mm: float, covered: str) -> None:
    (doubt,) = cine_doubts(pair(), spacing=(4.0, 4.0, slice_mm))
    assert covered in doubt


def test_equal_frames_are_doubted() -> None:
    (doubt,) = cine_doubts(np.repeat(pair()[:1], 2, axis=0), spacing=SPACING)
    assert "nearly the same image" in doubt


def test_exchanged_frames_are_doubted() -> None:
    assert cine_doubts(pair(), spacing=SPACING) == []
    (doubt,) = cine_doubts(pair()[::-1].copy(), spacing=SPACING)
    assert "may be exchanged" in doubt


@pytest.mark.parametrize("axes", [(2,), (0,), (1,), (0, 1), (0, 2), (0, 1, 2)])
def test_frames_stored_in_different_orders_are_doubted(axes: tuple[int, ...]) -> None:
    ed, es = pair()
    doubts = cine_doubts(np.stack([ed, np.flip(es, axes)]), spacing=SPACING)
    assert any("of one reversed" in doubt for doubt in doubts)


def test_motion_at_the_border_is_doubted() -> None:
    (doubt,) = cine_doubts(pair()[:, 15:], spacing=SPACING)
    assert "from the border" in doubt


@pytest.mark.parametrize("style", ["dermoscopy", "fundus", "plain"])
def test_skin_raises_no_doubt(style: str) -> None:
    assert photograph_doubts(skin(), style=style) == []


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (skin(blue=0.9, red=0.3), r"neither skin nor retina: \d+ % red"),
        (skin(green=0.95, red=0.8, blue=0.6), r"neither skin nor retina: \d+ % green"),
        (skin(red=0.6, green=0.35, blue=0.85), r"neither skin nor retina: \d+ % blue"),
        (np.repeat(skin()[:1], 3, axis=0), "grey"),
        (0.01 * skin(), "nearly black or white"),
        (np.full((3, 60, 80), 0.99, np.float32), "nearly black or white"),
        (np.repeat(np.array([0.75, 0.55, 0.5], np.float32), 4800).reshape(3, 60, 80), "hardly any contrast"),
        (skin()[:, :20], "only the middle square"),
    ],
)
def test_other_pictures_are_doubted(levels: np.ndarray, message: str) -> None:
    (doubt,) = photograph_doubts(levels, style="dermoscopy")
    assert re.search(message, doubt)


def test_of_plain_photographs_no_colours_are_expected() -> None:
    assert photograph_doubts(np.repeat(skin()[:1], 3, axis=0), style="plain") == []
    assert photograph_doubts(skin(blue=0.9, red=0.3), style="plain") == []


def test_dark_surroundings_do_not_count_as_a_colour() -> None:
    levels = np.zeros((3, 60, 80), np.float32)
    levels[:, 10:50, 20:60] = skin()[:, 10:50, 20:60]
    assert photograph_doubts(levels, style="fundus") == []


@pytest.mark.slow
@pytest.mark.parametrize("camera", sorted(DERMATOSCOPES))
@pytest.mark.parametrize("diagnosis", ["NV", "VASC"])
def test_phantom_lesions_raise_no_doubt(camera: str, diagnosis: str) -> None:
    picture = make_dermoscopy(diagnosis, DERMATOSCOPES[camera], 3, size=64).pixels
    assert photograph_doubts(np.moveaxis(picture, -1, 0).astype(np.float32) / 255, style="dermoscopy") == []


@pytest.mark.parametrize("camera", sorted(FUNDUS_CAMERAS))
def test_phantom_retinas_raise_no_doubt(camera: str) -> None:
    picture = make_fundus("nodr", FUNDUS_CAMERAS[camera], 3, size=64).pixels
    assert photograph_doubts(np.moveaxis(picture, -1, 0).astype(np.float32) / 255, style="fundus") == []


@pytest.mark.realdata
def test_real_lesions_hardly_ever_raise_a_doubt(real_data: Path) -> None:
    files = sorted((real_data / "fed_isic2019" / "ISIC_2019_Training_Input_preprocessed").glob("*.jpg"))[::20]
    doubted = [file.name for file in files if photograph_doubts(read_photograph(file), style="dermoscopy")]
    assert len(files) > 300
    assert len(doubted) <= 0.01 * len(files)


@pytest.mark.slow
def test_saturated_levels_empty_slices_and_alike_slices_are_doubted() -> None:
    frames = pair()
    (doubt,) = cine_doubts(np.minimum(frames, 140), spacing=SPACING)[:1]
    assert "saturated" in doubt
    frames[..., -2:] = 0
    assert "2 of 6 slices are empty" in cine_doubts(frames, spacing=SPACING)
    patient = make_patient("NOR", VENDORS["C"], 1, frames=8)
    time_third = patient.image[:, [3, 5]].transpose(1, 3, 2, 0)
    assert any("third axis time" in doubt for doubt in cine_doubts(time_third, spacing=patient.spacing))


@pytest.mark.parametrize(
    ("axis", "degrees", "is_doubted"), [(1, 2, False), (1, 20, True), (2, -20, True), (2, 0, False)]
)
def test_axes_that_are_not_at_right_angles_are_doubted(axis: int, degrees: float, is_doubted: bool) -> None:
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    slant = np.eye(3)
    slant[0, axis] = np.tan(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = turned @ slant * SPACING
    assert bool(affine_doubts(affine)) is is_doubted


@pytest.mark.slow
@pytest.mark.parametrize("signs", [(-1, -1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, 1, -1), (1, -1, -1)])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_wrong_signs_of_the_worlds_axes_are_doubted_in_every_order_of_the_file(
    signs: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    right = affine_of(beating_heart())[:, [*axes, 3]]
    shape = tuple(np.array([44, 40, 6])[list(axes)].tolist())
    assert view_doubts(right, shape) == []
    (doubt,) = view_doubts(np.diag([*signs, 1.0]) @ right, shape)
    assert int(re.findall(r"lie (\d+) degrees", doubt)[0]) > 50


@pytest.mark.parametrize("number", range(30))
def test_views_of_phantoms_are_usual_ones_and_axes_of_the_world_say_nothing(number: int) -> None:
    affine, shape = np.eye(4), (44, 40, 6)
    affine[:3, :3] = draw_directions(np.random.default_rng(number)) * SPACING
    assert view_doubts(affine, shape) == []
    assert view_doubts(np.diag([*SPACING, 1.0]), shape) == []


@pytest.mark.realdata
def test_a_real_view_is_usual_and_written_in_the_wrong_convention_is_not(real_data: Path) -> None:
    folder = real_data / "sunnybrook_dicom" / "SCD0000301"
    stack = find_stack(read_image_headers(sorted(folder.iterdir()), folder), folder)
    shape = read_voxels(stack).shape[:3]
    assert view_doubts(stack.affine, shape) == []
    for signs in ((-1, -1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)):
        assert len(view_doubts(np.diag([*signs, 1.0]) @ stack.affine, shape)) == 1
