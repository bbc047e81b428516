"""The right series is found, and every image that is not of it is counted with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.clinic.dicom_headers import ImageHeader
from monai_fedlora.clinic.dicom_series import series_name
from monai_fedlora.clinic.dicom_stack import Stack
from monai_fedlora.errors import DataError, FedLoraError
from tests.clinic.cine_studies import axes
from tests.clinic.test_dicom_stack import AXIAL, LONG_AXIS, cine, find, image, names, renamed


def left(stack: Stack) -> dict[str, int]:
    return {omission.why: omission.count for omission in stack.omissions}


def tilted(degrees: float) -> np.ndarray:
    """The short axis turned about its rows."""
    across, down = axes()
    angle = np.radians(degrees)
    return np.stack([across, np.cos(angle) * down + np.sin(angle) * np.cross(across, down)])


@pytest.mark.parametrize("attribute", ["inversion_time", "echo_time"])
def test_series_whose_inversion_or_echo_times_differ_are_no_cines(attribute: str) -> None:
    maps = [
        replace(header, **{attribute: 100.0 + 80 * (header.instance_number or 0)}, series_number=40, description="T1")
        for header in renamed(cine(range(9)), series="2")
    ]
    stack = find([*maps, *cine()])
    assert {header.series for place in stack.images for header in place} == {"1"}
    assert stack.notes[0] == "the cine is series 5: 5 slices of 8 frames"
    assert stack.notes[1].startswith("72 images of series 40 were left out: ")
    assert stack.quotes == ("series 40 is 'T1'",)
    with pytest.raises(DataError, match=r"no short-axis cine.*72 images of series 40 were left out: .* times differ"):
        find(maps)


def test_of_cines_nearly_as_long_the_one_of_more_frames_counts() -> None:
    few = renamed(cine(range(10), frames=8), series="2", series_number=40)
    stack = find([*few, *cine(range(9), frames=20)])
    assert len(stack.images) == 9
    assert left(stack) == {"a cine of fewer slices or frames": 80}


def test_of_cines_of_one_length_the_one_that_lasts_a_beat_counts() -> None:
    still = [
        replace(header, trigger_time=600.0 + number)
        for number, header in enumerate(renamed(cine(frames=12), series="2", series_number=40))
    ]
    stack = find([*still, *cine(frames=12)])
    assert {header.series for place in stack.images for header in place} == {"1"}
    assert stack.doubts == ()
    assert "may be no cine" in find(still).doubts[0]


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (32, 24)},
        {"spacing": (1.4, 1.4)},
        {"axes": tilted(1.0)},
        {"shape": (48, 64)},
    ],
)
@pytest.mark.parametrize("ends", [(4,), (3, 4), (0,)])
def test_slices_of_a_series_with_another_geometry_are_doubted(change: dict[str, Any], ends: Sequence[int]) -> None:
    headers = [replace(h, **change) if int(h.path.name[0]) in ends else h for h in cine(range(5))]
    if len(ends) == 2:
        headers += cine([-1])
    stack = find(headers)
    assert len(stack.images) == (4 if len(ends) == 2 else 5 - len(ends))
    why = "another matrix, pixel size or orientation than the slices used, so that a part of the heart may be missing"
    assert stack.doubts[0] == f"{8 * len(ends)} images of series 5 were left out: {why}"
    assert left(stack) == {why: 8 * len(ends)}


def test_a_slice_of_another_geometry_within_the_stack_is_a_hole() -> None:
    headers = [replace(h, shape=(32, 24)) if h.path.name[0] == "2" else h for h in cine(range(6))]
    with pytest.raises(DataError, match=r"16\.0 mm apart.*8 images of series 5 were left out: another matrix"):
        find(headers)


def test_slices_of_another_series_that_go_on_where_the_cine_ends_are_doubted() -> None:
    apex = renamed(cine([5, 6]), series="2", series_number=9, shape=(32, 24))
    stack = find([*apex, *cine()])
    (doubt,) = stack.doubts
    assert doubt.startswith("16 images of series 9 were left out: slices beyond those used")


def test_another_whole_short_axis_that_is_longer_at_one_end_is_no_doubt() -> None:
    second = renamed(cine(range(1, 5), shape=(32, 24)), series="2", series_number=9)
    moved = [replace(header, position=header.position - 8.0 * header.normal) for header in second]
    stack = find([*moved, *cine()])
    assert stack.doubts == ()
    assert left(stack) == {"a cine of fewer slices or frames": 32}


@pytest.mark.parametrize(
    "blocks", [[range(3), range(3, 6), range(6, 9)], [range(2), range(2, 9)], [range(0, 9, 2), range(1, 9, 2)]]
)
def test_series_that_continue_each_other_are_one_cine(blocks: Sequence[range]) -> None:
    headers = [
        header
        for number, block in enumerate(blocks)
        for header in renamed(cine(block), series=f"1.{number}", series_number=10 + number)
    ]
    stack = find(headers)
    assert len(stack.images) == 9
    assert (stack.omissions, stack.doubts) == ((), ())
    assert stack.notes[0].startswith("the cine is series 10, 11")


def test_a_slice_acquired_again_in_its_series_counts_as_acquired_last() -> None:
    again = [
        replace(h, uid=f"{h.uid}.2", acquisition=2, path=h.path.with_name("again"), instance_number=900 + n)
        for n, h in enumerate(cine([2]))
    ]
    stack = find([*again, *(replace(header, acquisition=1) for header in cine())])
    assert {header.path.name for header in stack.images[2]} == {"again"}
    assert left(stack) == {"acquired again later": 8}


def test_a_stack_acquired_twice_in_its_series_counts_as_acquired_last() -> None:
    again = [replace(h, uid=f"{h.uid}.2", acquisition=2, path=h.path.with_name("again")) for h in cine()]
    stack = find([*again, *(replace(header, acquisition=1) for header in cine())])
    assert {header.path.name for place in stack.images for header in place} == {"again"}
    assert left(stack) == {"acquired again later": 40}


def test_parts_of_a_beat_acquired_one_after_the_other_are_one_cine() -> None:
    stack = find([replace(h, acquisition=(h.instance_number or 0) % 100 // 6) for h in cine(frames=12)])
    assert stack.shape == (64, 48, 5, 12)
    assert stack.omissions == ()


def test_an_acquisition_that_was_broken_off_does_not_replace_a_slice() -> None:
    again = [
        replace(h, uid=f"{h.uid}.2", acquisition=2, trigger_time=None, instance_number=900) for h in cine([2], frames=3)
    ]
    stack = find([*again, *(replace(header, acquisition=1) for header in cine())])
    assert names(stack)[2] == [f"2-{frame}" for frame in range(8)]
    assert sum(left(stack).values()) == 3


def test_a_slice_that_was_acquired_again_as_a_series_of_its_own_is_counted() -> None:
    again = renamed(cine([2]), series="9", series_number=9)
    assert left(find([*again, *cine()])) == {"another acquisition of slices that are there": 8}
    slices = [renamed(cine([place]), series=f"1.{place}", series_number=10 + place) for place in range(5)]
    stack = find([*again, *(header for series in slices for header in series)])
    assert left(stack) == {"another acquisition of slices that are there": 8}


def test_every_other_series_is_counted_with_its_reason() -> None:
    series = {
        "fewer than 6 frames a slice": renamed(cine(frames=1), series="3", series_number=3),
        "a cine of fewer than 3 slices of one matrix and orientation": renamed(
            cine([0], frames=25, plane=LONG_AXIS), series="4", series_number=4
        ),
        "a cine that is no short axis": renamed(cine(range(9), plane=AXIAL), series="6", series_number=6),
        "a cine of fewer slices or frames": renamed(cine(range(3), spacing=(2.0, 2.0)), series="7", series_number=7),
    }
    stack = find([*cine(), *(header for headers in series.values() for header in headers)])
    assert left(stack) == {why: len(headers) for why, headers in series.items()}
    assert stack.doubts == ()


def test_series_without_a_number_are_named_so() -> None:
    assert series_name(replace(image(0, 0), series_number=0)) == "a series without a number"
    assert find(renamed(cine(), series_number=0)).notes[0].startswith("the cine is a series without a number: 5 slices")


FAULTS: dict[str, Any] = {
    "other matrix": lambda h: replace(h, shape=(32, 24)),
    "tilt": lambda h: replace(h, axes=tilted(1.0)),
    "inversion": lambda h: replace(h, inversion_time=100.0 * (h.instance_number or 0), series=f"9{h.series}"),
    "other series": lambda h: replace(h, series="77", series_number=77),
    "lost": lambda h: None,
    "late": lambda h: replace(h, trigger_time=(h.trigger_time or 0) + 300),
    "untimed": lambda h: replace(h, trigger_time=None),
    "shifted": lambda h: replace(h, position=h.position + 9 * h.axes[0]),
}


@pytest.mark.slow
@given(faults=st.lists(st.tuples(st.sampled_from(sorted(FAULTS)), st.integers(0, 7), st.booleans()), max_size=4))
def test_whatever_is_wrong_every_image_is_used_or_counted_or_the_study_is_refused(
    faults: list[tuple[str, int, bool]],
) -> None:
    """Faults befall a whole slice, or its second frame alone."""
    headers: list[ImageHeader] = cine(range(8))
    for fault, place, whole in faults:
        headers = [
            FAULTS[fault](h) if h.path.name == f"{place}-1" or (whole and h.path.name[0] == str(place)) else h
            for h in headers
        ]
        headers = [header for header in headers if header is not None]
    try:
        stack = find(headers)
    except FedLoraError:
        return
    used = [header.uid for place in stack.images for header in place]
    assert len(set(used)) == len(used)
    assert len(used) + sum(omission.count for omission in stack.omissions) == len(headers)
    told = " ".join((*stack.doubts, *stack.notes))
    assert all(str(omission) in told for omission in stack.omissions)
    spacing = np.diff([place[0].position @ place[0].normal for place in stack.images])
    assert np.ptp(spacing) < 0.31 * 8
