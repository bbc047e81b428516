"""Put the frames of a cine's slices in order, and check that all slices cover the same part of the heartbeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_fedlora.clinic.dicom_headers import ImageHeader
from monai_fedlora.errors import DataError

LARGEST_SHIFT = 1.0
"""Number of frames by which a slice may begin before or after the others (ours)."""
LARGEST_STRETCH, USUAL_STRETCH = 1.5, 1.25
"""Factors by which the beat of a slice may be longer or shorter than that of the others (ours). Beyond the first the
study is refused, because frames of the slices show different parts of the beat; beyond the second there is a doubt."""
SHORTEST_BEAT_MS = 200.0
"""Shortest time that the trigger times of one beat span (ours)."""
_GAP = 1.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Slices with their frames in order.

    Attributes:
        images: by slice, then by frame.
        times: ms after the R wave of each frame, median of the slices; None if the images do not say.
        notes: remarks for the reader of the answer.
        doubts: reasons why the frames may not be one beat.
    """

    images: tuple[tuple[ImageHeader, ...], ...]
    times: tuple[float, ...] | None
    notes: tuple[str, ...]
    doubts: tuple[str, ...]


def order_frames(slices: Sequence[Sequence[ImageHeader]], origin: Path) -> Timing:
    """Order the frames of slices: by trigger time, or else by temporal position or instance number.

    Args:
        slices: images of each slice, equally many.
        origin: the study, for messages.

    Raises:
        DataError: the frames of a slice cannot be put in order; two images of a slice have one trigger time; or a slice
            begins more than a frame (:data:`LARGEST_SHIFT`) before or after the others, lacks a frame that they have,
            or lasts 1.5 times as long or as short (:data:`LARGEST_STRETCH`).
    """
    by_trigger = all(_have_trigger_times(place, origin) for place in slices)
    key = _trigger if by_trigger else _numbering(slices, origin)
    images = tuple(tuple(sorted(place, key=key)) for place in slices)
    if not by_trigger:
        return Timing(images=images, times=None, notes=(_why_by_number(slices),), doubts=_short(slices))
    table = np.array([[_trigger(image) for image in place] for place in images])
    return Timing(
        images=images,
        times=tuple(np.median(table, axis=0).tolist()),
        notes=(),
        doubts=_short(slices) or _step(table, origin),
    )


def _trigger(image: ImageHeader) -> float:
    return image.trigger_time or 0.0


def _have_trigger_times(place: Sequence[ImageHeader], origin: Path) -> bool:
    """Whether trigger times order the frames of a slice; if some are equal, the instance numbers may instead.

    Raises:
        DataError: some are equal, and the instance numbers do not agree with the others.
    """
    times = [image.trigger_time for image in place]
    if None in times or len(set(times)) == 1:
        return False
    counts = Counter(times)
    if max(counts.values()) == 1:
        return True
    numbers = [image.instance_number for image in place]
    in_order = [_trigger(image) for image in sorted(place, key=lambda image: image.instance_number or 0)]
    is_told = None not in numbers and len(set(numbers)) == len(numbers)
    if not is_told or in_order != sorted(in_order) or min(counts.values()) > 1:
        twice = max(counts, key=lambda time: counts[time])
        raise DataError(
            f"{origin}: two images of one slice are of {twice:g} ms (series {place[0].series_number}); the series was "
            "stored twice, or with other images beside it, so leave one of each in the folder"
        )
    return False


def _numbering(slices: Sequence[Sequence[ImageHeader]], origin: Path) -> Callable[[ImageHeader], int]:
    orders: tuple[Callable[[ImageHeader], int | None], ...] = (
        lambda image: image.temporal_position,
        lambda image: image.instance_number,
        lambda image: image.frame,
    )
    for order in orders:
        for place in slices:
            numbers = [order(image) for image in place]
            if None in numbers or len(set(numbers)) < len(numbers):
                break
        else:
            return lambda image: order(image) or 0
    raise DataError(
        f"{origin}: the frames of a slice cannot be put in order (series {slices[0][0].series_number}): neither their "
        "trigger times nor their instance numbers differ; export the series again from the scanner"
    )


def _why_by_number(slices: Sequence[Sequence[ImageHeader]]) -> str:
    said = any(image.trigger_time is not None for place in slices for image in place)
    why = "the trigger times of some are equal or missing" if said else "the images do not say their trigger times"
    return f"frames are in the order of their instance numbers: {why}"


def _short(slices: Sequence[Sequence[ImageHeader]]) -> tuple[str, ...]:
    times = [time for image in slices[0] if (time := image.trigger_time) is not None]
    if not times or max(times) - min(times) >= SHORTEST_BEAT_MS or max(times) < SHORTEST_BEAT_MS:
        return ()
    return (f"all images of a slice are {min(times):.0f} to {max(times):.0f} ms after the R wave; they may be no cine",)


def _step(table: np.ndarray, origin: Path) -> tuple[str, ...]:
    """Check that trigger times (slices, frames) agree between slices; returns doubts about them."""
    steps = np.diff(table, axis=1)
    usual = np.median(steps, axis=1)
    lacks = steps > _GAP * usual[:, None]
    start, length = np.median(table[:, 0]), table[:, -1] - table[:, 0]
    stretch = length / np.median(length)
    stretch = np.maximum(stretch, 1 / stretch)
    for number in range(len(table)):
        shift = abs(table[number, 0] - start)
        if shift > LARGEST_SHIFT * np.median(usual):
            what = f"begins at {table[number, 0]:.0f} ms, and the others at {start:.0f} ms"
        elif stretch[number] > LARGEST_STRETCH:
            what = f"lasts {length[number]:.0f} ms, and the others {np.median(length):.0f} ms"
        elif (lacks[number] & (lacks.mean(axis=0) < 0.5)).any():
            after = table[number, int(np.argmax(lacks[number] & (lacks.mean(axis=0) < 0.5)))]
            what = f"has no frame after {after:.0f} ms, and the others have"
        else:
            continue
        raise DataError(
            f"{origin}: its slices are out of step: slice {number + 1} from the base {what}; a frame is missing, or "
            "the slice is of another recording, so export the series again"
        )
    doubts = []
    if stretch.max() > USUAL_STRETCH:
        place = int(stretch.argmax())
        doubts.append(
            f"the heart's rate changed between slices: slice {place + 1} from the base lasts {length[place]:.0f} ms, "
            f"the others {np.median(length):.0f} ms"
        )
    gaps = np.flatnonzero(lacks.mean(axis=0) >= 0.5)
    if len(gaps):
        doubts.append(f"a frame seems to be missing after {np.median(table[:, gaps[0]]):.0f} ms")
    return tuple(doubts)
