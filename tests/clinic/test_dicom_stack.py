"""Finding the short axis: order by geometry and time, and clear words where something is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.clinic.dicom_headers import ImageHeader, StudyImages, read_image_headers
from monai_fedlora.clinic.dicom_stack import Stack, find_stack
from monai_fedlora.errors import DataError
from monai_fedlora.studies.zipped import study_files
from tests.clinic.cine_studies import affine_of, axes

ORIGIN = Path("study")
AXIAL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
LONG_AXIS = np.stack([axes()[0], np.cross(*axes())])


@pytest.fixture
def cine_voxels(cine: np.ndarray) -> np.ndarray:
    """The made-up heart; its own name is a function here."""
    return cine


def image(place: int, frame: int, *, plane: np.ndarray | None = None, **changes: Any) -> ImageHeader:
    """Slice ``place`` from the base, frame ``frame``."""
    plane = axes() if plane is None else plane
    header = ImageHeader(
        path=Path(f"{place}-{frame}"),
        uid=f"1.2.{place}.{frame}",
        series="1",
        series_number=5,
        description="",
        instance_number=100 * place + frame,
        trigger_time=20.0 + 40.0 * frame,
        shape=(64, 48),
        spacing=(1.5, 1.5),
        position=np.array([10.0, 20.0, 30.0]) - 8.0 * place * np.cross(*plane),
        axes=plane,
    )
    return replace(header, **changes)


def cine(slices: Iterable[int] = range(5), frames: int = 8, **changes: Any) -> list[ImageHeader]:
    return [image(place, frame, **changes) for place in slices for frame in range(frames)]


def renamed(headers: Sequence[ImageHeader], **changes: Any) -> list[ImageHeader]:
    """Other images at the same places."""
    uid = changes.get("series", "x")
    return [replace(header, uid=f"{header.uid}.{uid}", **changes) for header in headers]


def find(headers: Sequence[ImageHeader]) -> Stack:
    return find_stack(StudyImages(headers=tuple(headers)), ORIGIN)


def names(stack: Any) -> list[list[str]]:
    return [[header.path.name for header in images] for images in stack.images]


EXPECTED = [[f"{place}-{frame}" for frame in range(8)] for place in range(5)]


@pytest.mark.slow
@given(seed=st.integers(0, 1000))
def test_slices_go_from_base_to_apex_and_frames_by_time_in_whatever_order_files_come(seed: int) -> None:
    headers = cine()
    np.random.default_rng(seed).shuffle(headers)  # type: ignore[arg-type]
    numbered = [replace(header, instance_number=number) for number, header in enumerate(headers)]
    stack = find(numbered)
    assert names(stack) == EXPECTED
    assert stack.times == tuple(20.0 + 40.0 * frame for frame in range(8))
    assert (stack.shape, stack.doubts, stack.omissions) == ((64, 48, 5, 8), (), ())
    assert stack.notes == ("the cine is series 5: 5 slices of 8 frames",)
    assert [header.path.name for header in stack.of_frame(3)] == [f"{place}-3" for place in range(5)]


def test_affine_places_voxels_where_another_toolkit_does(stored_study: Path, cine_voxels: np.ndarray) -> None:
    with study_files(stored_study) as files:
        stack = find_stack(read_image_headers(files, stored_study), stored_study)
    np.testing.assert_allclose(stack.affine, affine_of(cine_voxels), atol=1e-4)
    for place in (0, 3, 5):
        reference = sitk.ReadImage(str(stack.images[place][0].path))
        for column, row in ((0, 0), (43, 0), (7, 31)):
            left, posterior, superior = reference.TransformIndexToPhysicalPoint((column, row, 0))
            found = stack.affine @ (column, row, place, 1)
            np.testing.assert_allclose(found[:3], (-left, -posterior, superior), atol=1e-3)


@pytest.mark.parametrize("times", [{"trigger_time": None}, {"trigger_time": 0.0}])
def test_without_trigger_times_instance_numbers_order_the_frames(times: dict[str, Any]) -> None:
    stack = find([replace(header, **times) for header in cine()][::-1])
    assert names(stack) == EXPECTED
    assert stack.times is None
    assert "instance numbers" in stack.notes[1]


def test_without_any_order_of_frames_the_study_is_refused() -> None:
    headers = [replace(header, trigger_time=None, instance_number=1) for header in cine()]
    with pytest.raises(DataError, match="cannot be put in order"):
        find(headers)


def test_missing_frame_is_refused_by_its_slice() -> None:
    headers = [header for header in cine() if header.path.name != "2-5"]
    with pytest.raises(DataError, match="slice 3 from the base has 7 frames, and the others 8"):
        find(headers)


def test_frame_that_all_slices_lack_is_doubted() -> None:
    headers = [header for header in cine(frames=9) if header.path.name[2:] != "5"]
    assert find(headers).doubts == ("a frame seems to be missing after 180 ms",)


def test_missing_slice_is_refused_by_its_place() -> None:
    with pytest.raises(DataError, match=r"slices 2 and 3 from the base are 16\.0 mm apart, and the others 8\.0 mm"):
        find(cine((0, 1, 3, 4, 5)))


def test_slice_that_is_mostly_missing_is_refused_though_few_images_of_it_are_left() -> None:
    headers = [header for header in cine() if header.path.name not in {f"2-{frame}" for frame in range(6)}]
    with pytest.raises(DataError, match="slice 3 from the base has 2 frames"):
        find(headers)


def test_slices_shifted_in_their_plane_are_refused() -> None:
    shift = 3.0 * axes()[0]
    headers = [replace(h, position=h.position + shift) if h.path.name[0] == "2" else h for h in cine()]
    with pytest.raises(DataError, match="shifted against each other"):
        find(headers)
    sheared = [replace(h, position=h.position + int(h.path.name[0]) * shift) for h in cine()]
    with pytest.raises(DataError, match="shifted against each other"):
        find(sheared)


def test_image_stored_twice_under_two_uids_is_refused() -> None:
    headers = cine() + [replace(header, uid=f"{header.uid}.2") for header in cine()]
    with pytest.raises(DataError, match="two images of one slice are of 20 ms"):
        find(headers)


def test_localisers_long_axes_and_late_enhancement_are_passed_over() -> None:
    localiser = renamed(
        [image(place, 0, plane=plane) for plane in (AXIAL, LONG_AXIS, AXIAL[::-1]) for place in range(7)],
        series="2",
        description="localiser",
    )
    localiser = [replace(header, uid=f"2.{number}") for number, header in enumerate(localiser)]
    late = renamed(cine(frames=1), series="3", description="late")
    four_chamber = renamed(cine(slices=[0], frames=25, plane=LONG_AXIS), series="4")
    stack = find([*localiser, *late, *four_chamber, *cine()])
    assert names(stack) == EXPECTED
    assert {header.series for images in stack.images for header in images} == {"1"}


def test_series_of_one_slice_each_make_one_stack() -> None:
    headers = [replace(header, series=header.path.name[0], series_number=int(header.path.name[0])) for header in cine()]
    stack = find(headers)
    assert names(stack) == EXPECTED
    assert "5 series" in stack.notes[1]


def test_of_a_repeated_slice_the_last_series_counts() -> None:
    headers = [replace(header, series=header.path.name[0], series_number=int(header.path.name[0])) for header in cine()]
    again = renamed([header for header in headers if header.series == "2"], series="9", series_number=9)
    stack = find([*again, *headers])
    assert {header.series for header in stack.images[2]} == {"9"}
    assert len(stack.images) == 5


def test_an_axial_cine_beside_the_short_axis_is_passed_over_though_it_has_more_slices() -> None:
    axial = renamed(cine(slices=range(20), plane=AXIAL), series="2")
    assert names(find([*axial, *cine()])) == EXPECTED


def test_of_two_short_axes_the_longer_counts() -> None:
    perfusion = renamed(cine(slices=(0, 2, 4), frames=40), series="2")
    assert names(find([*perfusion, *cine()])) == EXPECTED


def test_two_equal_short_axes_are_refused_by_name() -> None:
    second = renamed(cine(), series="2", series_number=8, description="cine sax repeat")
    with pytest.raises(DataError, match=r"2 cines of 5 slices .*series 5; series 8, 'cine sax repeat'"):
        find([*cine(), *second])


def test_a_cine_that_is_no_short_axis_is_doubted() -> None:
    (doubt,) = find(cine(plane=AXIAL)).doubts
    assert "may not be the short axis" in doubt


@pytest.mark.parametrize("turn", [lambda plane: plane[::-1], lambda plane: plane * [[1], [-1]]])
def test_a_short_axis_stored_mirrored_goes_from_base_to_apex_without_a_doubt(turn: Any) -> None:
    """Rows from below or columns as rows: the images' own normal then points to the apex."""
    towards_apex = 8.0 * np.cross(*axes())
    stored = [
        image(place, frame, plane=turn(axes()), position=np.array([10.0, 20.0, 30.0]) - place * towards_apex)
        for place in range(5)
        for frame in range(8)
    ]
    stack = find(stored)
    assert stack.doubts == ()
    assert names(stack) == EXPECTED
    np.testing.assert_allclose(stack.affine[:3, 2], towards_apex * [1, 1, -1], atol=1e-9)


@pytest.mark.parametrize(("slices", "frames"), [(2, 20), (9, 5)])
def test_too_few_slices_or_frames_are_refused_with_what_there_is(slices: int, frames: int) -> None:
    with pytest.raises(DataError, match=rf"series 5: {slices * frames} images at {slices} places in 1 orientation"):
        find(cine(range(slices), frames))
