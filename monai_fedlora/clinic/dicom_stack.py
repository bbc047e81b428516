"""Find the short-axis cine among the images of a DICOM study, and put its slices and frames in order.

Slices are ordered by the projection of their position on the normal of the image plane, base first, and an array runs
along the columns, then the rows, as in ACDC and M&Ms: what a model learned from such files it meets again here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_fedlora.clinic.dicom_headers import ImageHeader
from monai_fedlora.errors import DataError
from monai_fedlora.transforms.frames import MINIMUM_SLICES

MINIMUM_FRAMES = 6
_TO_BASE = np.array([-1.0, 1.0, 1.0]) / np.sqrt(3.0)
"""From the apex of a heart to its base: to the right, backwards and upwards (patient coordinates; ours)."""
_NEAR_SHORT_AXIS = 0.7
"""Cosine of the largest angle between an image's normal and :data:`_TO_BASE` (ours); a patient's axes have 0.58."""
_SAME_PLACE_MM = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A short-axis cine.

    Attributes:
        images: by slice from base to apex, then by frame.
        affine: (4, 4) voxel (column, row, slice) to world in mm, in NIfTI's coordinates (right, anterior, superior).
        times: ms after the R wave of each frame, median of the slices; None if the images do not say.
        notes: what was decided that a reader should know.
        doubts: what speaks against this being a usable short-axis cine.
    """

    images: tuple[tuple[ImageHeader, ...], ...]
    affine: np.ndarray
    times: tuple[float, ...] | None
    notes: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(columns, rows, slices, frames)."""
        return (*self.images[0][0].shape, len(self.images), len(self.images[0]))

    def of_frame(self, frame: int) -> tuple[ImageHeader, ...]:
        """The images of one time, base first."""
        return tuple(images[frame] for images in self.images)


def find_stack(headers: Sequence[ImageHeader], origin: Path) -> Stack:
    """Choose and order the short-axis cine of a study.

    A cine has at least 3 parallel slices of equal matrix with at least 6 frames (ours). It is one series, or several
    series of one slice each, of which a repeated slice counts as acquired last. Localisers, long axes and late
    enhancement lack slices or frames. Of several cines those count whose normal points along the heart, then the one
    with most slices.

    Args:
        headers: of the MR images of the study.
        origin: the folder or archive, for messages.

    Raises:
        DataError: there is no such cine, or several; a slice or frame is missing or there twice; or the slices are
            shifted against each other.
    """
    cines = [cine for group in _parallel(headers) for cine in _cines(group)]
    if not cines:
        raise DataError(
            f"{origin} holds no short-axis cine: at least {MINIMUM_SLICES} parallel slices with {MINIMUM_FRAMES} "
            f"frames each are needed, and there is {_summary(headers)}"
        )
    best = max(cine.rank for cine in cines)
    chosen = [cine for cine in cines if cine.rank == best]
    if len(chosen) > 1:
        names = "; ".join(sorted(_name(cine.slices[0][0]) for cine in chosen))
        raise DataError(
            f"{origin} holds {len(chosen)} cines of {best[1]} slices that could be the short axis: {names}; leave "
            "one of them in the folder"
        )
    return _ordered(chosen[0], origin)


@dataclass(frozen=True, slots=True)
class _Cine:
    """Parallel slices: the images of every place along their normal, in order of the projection on it."""

    slices: list[list[ImageHeader]]
    normal: np.ndarray

    @property
    def towards_base(self) -> float:
        """Cosine of the angle between the normal and the direction from a heart's apex to its base."""
        return float(self.normal @ _TO_BASE)

    @property
    def rank(self) -> tuple[bool, int]:
        return abs(self.towards_base) >= _NEAR_SHORT_AXIS, len(self.slices)


def _parallel(headers: Iterable[ImageHeader]) -> list[list[ImageHeader]]:
    """Group images by orientation, matrix and pixel size."""
    groups: list[list[ImageHeader]] = []
    for header in headers:
        for group in groups:
            first = group[0]
            if (
                header.shape == first.shape
                and np.allclose(header.spacing, first.spacing, rtol=1e-3)
                and np.allclose(header.axes, first.axes, atol=5e-3)
            ):
                group.append(header)
                break
        else:
            groups.append([header])
    return groups


def _cines(group: Sequence[ImageHeader]) -> list[_Cine]:
    """The cines among parallel images: single series, and all series of fewer slices together."""
    by_series: dict[str, list[ImageHeader]] = defaultdict(list)
    for header in group:
        by_series[header.series].append(header)
    normal = group[0].normal
    cines: list[_Cine] = []
    loose: list[ImageHeader] = []
    for images in by_series.values():
        slices = _slices(images, normal)
        if len(slices) < MINIMUM_SLICES:
            loose += [image for place in slices if len(place) >= MINIMUM_FRAMES for image in place]
        elif max(map(len, slices)) >= MINIMUM_FRAMES:
            cines.append(_Cine(slices, normal))
    together = [_last_series(place) for place in _slices(loose, normal)]
    return [*cines, _Cine(together, normal)] if len(together) >= MINIMUM_SLICES else cines


def _slices(images: Iterable[ImageHeader], normal: np.ndarray) -> list[list[ImageHeader]]:
    places: list[list[ImageHeader]] = []
    last = -np.inf
    for image in sorted(images, key=lambda image: (float(image.position @ normal), image.uid, image.frame or 0)):
        projection = float(image.position @ normal)
        if projection - last > _SAME_PLACE_MM:
            places.append([])
        places[-1].append(image)
        last = projection
    return places


def _last_series(place: Sequence[ImageHeader]) -> list[ImageHeader]:
    last = max((image.series_number, image.series) for image in place)
    return [image for image in place if (image.series_number, image.series) == last]


def _ordered(cine: _Cine, origin: Path) -> Stack:
    notes: list[str] = []
    doubts: list[str] = []
    if abs(cine.towards_base) < _NEAR_SHORT_AXIS:
        doubts.append("the slices do not lie across the usual axis of a heart; they may not be the short axis")
    elif cine.towards_base < 0:
        doubts.append("the images are seen from the base; base and apex may be exchanged")
    base_first = cine.slices[::-1]
    _check_complete(base_first, origin)
    step = _step(base_first, cine.normal, origin)
    by_trigger = all(_have_trigger_times(place, origin) for place in base_first)
    if not by_trigger:
        notes.append("frames are in the order of their instance numbers: the images do not say their trigger times")
    images = tuple(tuple(_in_time(place, by_trigger, origin)) for place in base_first)
    series = {image.series for place in images for image in place}
    if len(series) > 1:
        notes.append(f"the slices are of {len(series)} series; of a repeated slice the last acquisition is used")
    times = None
    if by_trigger:
        table = np.array([[image.trigger_time for image in place] for place in images], dtype=float)
        times = tuple(np.median(table, axis=0).tolist())
        steps = np.diff(times)
        if steps.max() > 1.8 * np.median(steps):
            doubts.append(f"a frame seems to be missing after {times[int(steps.argmax())]:.0f} ms")
    return Stack(
        images=images, affine=_affine(images[0][0], step), times=times, notes=tuple(notes), doubts=tuple(doubts)
    )


def _check_complete(slices: Sequence[Sequence[ImageHeader]], origin: Path) -> None:
    counts = [len(place) for place in slices]
    usual = Counter(counts).most_common(1)[0][0]
    for number, (place, count) in enumerate(zip(slices, counts, strict=True), 1):
        if count != usual:
            raise DataError(
                f"{origin}: slice {number} from the base has {count} frames, and the others {usual} "
                f"({_name(place[0])}); images are missing or there twice, so export the series again"
            )


def _step(slices: Sequence[Sequence[ImageHeader]], normal: np.ndarray, origin: Path) -> np.ndarray:
    """(3,) mm from a slice to the next, after checking that each lies where it should."""
    positions = np.array([place[0].position for place in slices])
    distances = -np.diff(positions @ normal)
    usual = float(np.median(distances))
    for number, distance in enumerate(distances, 1):
        if abs(distance - usual) > 0.15 * usual:
            raise DataError(
                f"{origin}: slices {number} and {number + 1} from the base are {distance:.1f} mm apart, and the others "
                f"{usual:.1f} mm; a slice is missing or of another series"
            )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    steps = np.arange(len(positions))[:, None] * step
    astray = np.abs((positions - positions[0] - steps) @ slices[0][0].axes.T)
    if (astray > max(slices[0][0].spacing)).any() or np.linalg.norm(step) > 1.02 * usual:
        raise DataError(f"{origin}: its slices are shifted against each other in their plane; they are not one stack")
    return step


def _have_trigger_times(place: Sequence[ImageHeader], origin: Path) -> bool:
    times = [image.trigger_time for image in place]
    if None in times or len(set(times)) == 1:
        return False
    if twice := [time for time, count in Counter(times).items() if count > 1]:
        raise DataError(
            f"{origin}: two images of one slice are of {twice[0]:g} ms ({_name(place[0])}); the series was stored "
            "twice, or with other images beside it, so leave one of each in the folder"
        )
    return True


def _in_time(place: Sequence[ImageHeader], by_trigger: bool, origin: Path) -> list[ImageHeader]:
    if by_trigger:
        return sorted(place, key=lambda image: image.trigger_time or 0.0)
    numbers = [image.instance_number for image in place]
    if None in numbers or len(set(numbers)) < len(numbers):
        raise DataError(
            f"{origin}: the frames of a slice cannot be put in order ({_name(place[0])}): neither their trigger times "
            "nor their instance numbers differ; export the series again from the scanner"
        )
    return sorted(place, key=lambda image: image.instance_number or 0)


def _affine(image: ImageHeader, step: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 0] = image.axes[0] * image.spacing[0]
    affine[:3, 1] = image.axes[1] * image.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = image.position
    affine[:2] *= -1.0  # from DICOM's left and posterior to NIfTI's right and anterior
    return affine


def _name(image: ImageHeader) -> str:
    return f"series {image.series_number}" + (f", {image.description!r:.64}" if image.description else "")


def _summary(headers: Sequence[ImageHeader]) -> str:
    series: dict[str, list[ImageHeader]] = defaultdict(list)
    for header in headers:
        series[header.series].append(header)
    parts = []
    for images in list(series.values())[:6]:
        directions = len(_parallel(images))
        places = len({np.round(image.position, 1).tobytes() for image in images})
        parts.append(f"{_name(images[0])}: {len(images)} images at {places} places in {directions} orientations")
    return "; ".join(parts)
