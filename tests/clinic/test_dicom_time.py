"""Frames in order, and slices in step: what is not is refused by its slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.clinic.dicom_headers import ImageHeader
from monai_fedlora.clinic.dicom_time import order_frames
from monai_fedlora.errors import DataError
from tests.clinic.test_dicom_stack import ORIGIN, image

FRAMES = 12


def stack(times: Sequence[Sequence[float | None]]) -> list[list[ImageHeader]]:
    """Slices whose frames have these trigger times, shuffled."""
    slices = [
        [replace(image(place, frame), trigger_time=time) for frame, time in enumerate(row)]
        for place, row in enumerate(times)
    ]
    for number, place in enumerate(slices):
        np.random.default_rng(number).shuffle(place)  # type: ignore[arg-type]
    return slices


def beat(*, start: float = 10.0, step: float = 50.0, frames: int = FRAMES) -> list[float | None]:
    return [start + step * frame for frame in range(frames)]


def in_order(slices: Sequence[Sequence[ImageHeader]]) -> bool:
    return all(
        [image.path.name.split("-")[1] for image in place] == [str(n) for n in range(FRAMES)] for place in slices
    )


def test_slices_of_another_heart_rate_are_in_step() -> None:
    timing = order_frames(stack([beat(), beat(step=55), beat(start=15), beat(step=44)]), ORIGIN)
    assert in_order(timing.images)
    assert timing.times is not None
    assert len(timing.times) == FRAMES
    assert (timing.notes, timing.doubts) == ((), ())


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (beat(start=310), "slice 3 from the base begins at 310 ms, and the others at 10 ms"),
        (beat(start=70), "slice 3 from the base begins at 70 ms"),
        (beat(step=80), "slice 3 from the base lasts 880 ms, and the others 550 ms"),
        (beat(step=20), "slice 3 from the base lasts 220 ms"),
        ([time for time in beat(frames=13) if time != 260], "slice 3 from the base has no frame after 210 ms"),
    ],
)
def test_slices_out_of_step_are_refused(odd: list[float | None], message: str) -> None:
    with pytest.raises(DataError, match=f"out of step: {message}"):
        order_frames(stack([beat(), beat(), odd, beat(), beat()]), ORIGIN)


def test_a_heart_rate_that_changed_much_is_doubted() -> None:
    (doubt,) = order_frames(stack([beat(), beat(), beat(step=68), beat()]), ORIGIN).doubts
    assert "the heart's rate changed between slices: slice 3 from the base lasts 748 ms" in doubt


def test_equal_trigger_times_leave_the_order_to_distinct_instance_numbers() -> None:
    rounded = beat()
    rounded[3] = rounded[2]
    timing = order_frames(stack([beat(), rounded, beat()]), ORIGIN)
    assert in_order(timing.images)
    assert timing.times is None
    assert timing.notes == (
        "frames are in the order of their instance numbers: the trigger times of some are equal or missing",
    )


@pytest.mark.parametrize("kind", ["no numbers", "every time twice", "not in order"])
def test_equal_trigger_times_that_nothing_orders_are_refused(kind: str) -> None:
    rows = [beat(), beat()[: FRAMES // 2] * 2 if kind == "every time twice" else [*beat()[:-1], 10.0]]
    slices = stack(rows)
    if kind == "no numbers":
        slices[1] = [replace(image, instance_number=None) for image in slices[1]]
    with pytest.raises(DataError, match=r"two images of one slice are of 1?10 ms"):
        order_frames(slices, ORIGIN)


def test_temporal_positions_come_before_instance_numbers() -> None:
    slices = [
        [replace(image, temporal_position=image.instance_number, instance_number=1) for image in place]
        for place in stack([[None] * FRAMES] * 3)
    ]
    assert in_order(order_frames(slices, ORIGIN).images)


@pytest.mark.parametrize(
    ("times", "doubts"), [([600.0] * FRAMES, 1), (list(np.arange(600.0, 612.0)), 1), ([0.0] * FRAMES, 0)]
)
def test_images_of_one_time_of_the_beat_may_be_no_cine(times: list[float | None], doubts: int) -> None:
    found = order_frames(stack([times, times, times]), ORIGIN).doubts
    assert len(found) == doubts
    assert all("may be no cine" in doubt for doubt in found)


@given(
    shift=st.floats(-45, 45), stretch=st.floats(0.85, 1.2), place=st.integers(0, 4), jitter=st.floats(0, 10),
)  # fmt: skip
def test_what_hearts_do_between_breath_holds_is_in_step(
    shift: float, stretch: float, place: int, jitter: float
) -> None:
    rows = [beat(start=100.0) for _ in range(5)]
    noise = np.random.default_rng(place).uniform(-jitter, jitter, FRAMES)
    rows[place] = [100 + shift + 50 * stretch * frame + noise[frame] for frame in range(FRAMES)]
    timing = order_frames(stack(rows), ORIGIN)
    assert in_order(timing.images)
