"""Find the short-axis cine among the series of a study, and give a reason for every image that is not used."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monai_fedlora.clinic.dicom_headers import ImageHeader, StudyImages
from monai_fedlora.clinic.dicom_kinds import differ
from monai_fedlora.clinic.dicom_time import SHORTEST_BEAT_MS
from monai_fedlora.clinic.omissions import Unused, summarise
from monai_fedlora.errors import DataError
from monai_fedlora.transforms.frames import MINIMUM_SLICES

MINIMUM_FRAMES, USUAL_FRAMES = 6, 10
"""Fewest frames of a cine, and frames below which another cine is preferred (ours)."""
UNEVEN = 0.15
"""Share by which the distance of two neighbouring slices may differ from that of the others (ours)."""
_TO_BASE = np.array([-1.0, 1.0, 1.0]) / np.sqrt(3.0)
"""Unit vector from the apex of a heart to its base: right, posterior, superior (patient coordinates; ours)."""
_NEAR_SHORT_AXIS = 0.7
"""Cosine of the largest angle between the normal of a short axis and :data:`_TO_BASE` (ours); axial, coronal and
sagittal images have 0.58."""
_NEARLY_PARALLEL = np.cos(np.radians(15.0))
_SAME_PLACE_MM = 0.5
_NEARLY_AS_MANY = 2 / 3
"""Share of the slices of the longest short-axis cine that another needs to be preferred for its frames (ours)."""
_REACH = 3.5
"""Slice distances beyond the ends of a cine within which other slices are taken for its continuation (ours)."""
_MISSING = ", so that a part of the heart may be missing"


@dataclass(frozen=True, slots=True)
class Cine:
    """Parallel slices, ordered by their position along the normal; each is the list of its images (frames)."""

    slices: list[list[ImageHeader]]
    normal: np.ndarray

    @property
    def towards_base(self) -> float:
        """Cosine of the angle between the normal and the direction from a heart's apex to its base."""
        return float(self.normal @ _TO_BASE)

    @property
    def from_apex(self) -> Cine:
        """The same slices ordered from apex to base."""
        return self if self.towards_base >= 0 else Cine(self.slices[::-1], -self.normal)

    @property
    def is_short_axis(self) -> bool:
        """Whether the normal lies near the usual long axis of a heart, in either direction."""
        return abs(self.towards_base) >= _NEAR_SHORT_AXIS

    @property
    def frames(self) -> int:
        """Number of frames that most slices have."""
        return Counter(map(len, self.slices)).most_common(1)[0][0]

    @property
    def series(self) -> set[str]:
        """UIDs of the series that the images belong to."""
        return {image.series for image in self.images}

    @property
    def images(self) -> list[ImageHeader]:
        """All images."""
        return [image for place in self.slices for image in place]

    @property
    def spans_beat(self) -> bool:
        """Whether the trigger times of the first slice span at least the shortest heartbeat."""
        times = [image.trigger_time for image in self.slices[0] if image.trigger_time is not None]
        return bool(times) and max(times) - min(times) >= SHORTEST_BEAT_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The short-axis cine of a study.

    Attributes:
        cine: its slices.
        unused: all other images and files of the study.
        notes: which series the cine is, and remarks of the reader of the headers.
    """

    cine: Cine
    unused: tuple[Unused, ...]
    notes: tuple[str, ...]


def choose_cine(images: StudyImages, origin: Path) -> Chosen:
    """Choose the short-axis cine of a study.

    A cine has at least 3 parallel slices of one matrix with at least 6 frames each (ours), whose inversion and echo
    times do not differ. It is one series, or several series that continue each other at equal distances, or several
    series of fewer slices together; of a slice that was repeated, the last acquisition is used. Of several cines, those
    are considered whose normal lies near the long axis of the heart and that have nearly as many slices as the longest;
    preferred are at least 10 frames, then trigger times that span a beat, then most slices.

    Args:
        images: of the study.
        origin: the folder or archive, for messages.

    Raises:
        DataError: there is no such cine, or several.
    """
    others = {uid: why for uid, series in _by_series(images.headers).items() if (why := _why_no_cine(series))}
    rest = [image for image in images.headers if image.series not in others]
    cines = [cine for group in _parallel(rest) for cine in _cines(group)]
    if not cines:
        excluded = [image.unused(others[image.series]) for image in images.headers if image.series in others]
        there = [_summary(rest), *map(str, summarise([*images.unused, *excluded]))]
        raise DataError(
            f"{origin} holds no short-axis cine: at least {MINIMUM_SLICES} parallel slices with {MINIMUM_FRAMES} "
            f"frames each are needed, and there is {'; '.join(filter(None, there))}"
        )
    chosen = _best(cines)
    if len(chosen) > 1:
        names = "; ".join(sorted(_names(cine) for cine in chosen))
        raise DataError(
            f"{origin} holds {len(chosen)} cines of {len(chosen[0].slices)} slices that could be the short axis: "
            f"{names}; leave one of them in the folder"
        )
    cine = chosen[0]
    unused = [
        replace(one, why=f"{one.why}{_MISSING}", is_doubt=True) if one.lacks and one.series in cine.series else one
        for one in images.unused
    ]
    numbers = sorted({image.series_number for image in cine.images})
    note = f"the cine is {_numbered(numbers)}: {len(cine.slices)} slices of {cine.frames} frames"
    return Chosen(
        cine=cine,
        unused=(*unused, *_left(images.headers, cine, cines, others)),
        notes=(note, *images.notes),
    )


def _best(cines: Sequence[Cine]) -> list[Cine]:
    short = [cine for cine in cines if cine.is_short_axis] or list(cines)
    most = max(len(cine.slices) for cine in short)
    ranks = {
        index: (cine.frames >= USUAL_FRAMES, cine.spans_beat, len(cine.slices))
        for index, cine in enumerate(short)
        if len(cine.slices) >= _NEARLY_AS_MANY * most
    }
    best = max(ranks.values())
    return [short[index] for index, rank in ranks.items() if rank == best]


def series_name(image: ImageHeader) -> str:
    """Number and description of an image's series, for messages."""
    return _numbered([image.series_number]) + (f", {image.description!r:.64}" if image.description else "")


def _numbered(numbers: Sequence[int]) -> str:
    return f"series {', '.join(map(str, numbers))}" if any(numbers) else "a series without a number"


def _names(cine: Cine) -> str:
    return " and ".join(sorted({series_name(image) for image in cine.images}))


def _by_series(images: Iterable[ImageHeader]) -> dict[str, list[ImageHeader]]:
    series: dict[str, list[ImageHeader]] = defaultdict(list)
    for image in images:
        series[image.series].append(image)
    return series


def _places(series: Sequence[ImageHeader]) -> list[list[ImageHeader]]:
    return [place for group in _parallel(series) for place in _slices(group, group[0].normal)]


def _why_no_cine(series: Sequence[ImageHeader]) -> str | None:
    """Why a series is no cine: inversion or echo times that differ within a slice; None if they do not."""
    for place in _places(series):
        if differ([image.inversion_time for image in place]):
            return "inversion times differ within a slice"
        if differ([image.echo_time for image in place]):
            return "echo times differ within a slice"
    return None


def _parallel(headers: Iterable[ImageHeader]) -> list[list[ImageHeader]]:
    """Group images by orientation, matrix and pixel size."""
    groups: list[list[ImageHeader]] = []
    for header in headers:
        group = next((group for group in groups if _same_grid(header, group[0])), None)
        if group is None:
            groups.append([header])
        else:
            group.append(header)
    return groups


def _same_grid(image: ImageHeader, other: ImageHeader) -> bool:
    """Whether two images have the same matrix, pixel size and orientation."""
    return (
        image.shape == other.shape
        and np.allclose(image.spacing, other.spacing, rtol=1e-3)
        and np.allclose(image.axes, other.axes, atol=5e-3)
    )


def _cines(group: Sequence[ImageHeader]) -> list[Cine]:
    """The cines among parallel images.

    If the series continue each other, they are one cine. Otherwise every series with enough slices is one, and all
    series with fewer slices are one together.
    """
    normal = group[0].normal
    series = [_last_acquisitions(_slices(images, normal)) for images in _by_series(group).values()]
    moving = [slices for slices in series if max(map(len, slices)) >= MINIMUM_FRAMES]
    if (joined := _joined(moving, normal)) is not None:
        return [joined]
    cines = [Cine(slices, normal) for slices in moving if len(slices) >= MINIMUM_SLICES]
    loose = [image for slices in moving if len(slices) < MINIMUM_SLICES for place in slices for image in place]
    together = [_last_series(place) for place in _slices(loose, normal)]
    return [*cines, Cine(together, normal)] if len(together) >= MINIMUM_SLICES else cines


def _joined(series: Sequence[list[list[ImageHeader]]], normal: np.ndarray) -> Cine | None:
    """All series as one cine, if no slice is repeated and distances and numbers of frames are equal; else None."""
    together = _slices((image for slices in series for place in slices for image in place), normal)
    frames = {len(place) for place in together}
    if len(together) != sum(map(len, series)) or len(frames) != 1 or len(together) < MINIMUM_SLICES:
        return None
    distances = np.diff([place[0].position @ normal for place in together])
    usual = np.median(distances)
    return Cine(together, normal) if (np.abs(distances - usual) <= UNEVEN * usual).all() else None


def _slices(images: Iterable[ImageHeader], normal: np.ndarray) -> list[list[ImageHeader]]:
    """Group images by their position along the normal, in rising order."""
    places: list[list[ImageHeader]] = []
    last = -np.inf
    for image in sorted(images, key=lambda image: (float(image.position @ normal), image.uid, image.frame or 0)):
        projection = float(image.position @ normal)
        if projection - last > _SAME_PLACE_MM:
            places.append([])
        places[-1].append(image)
        last = projection
    return places


def _last_acquisitions(slices: list[list[ImageHeader]]) -> list[list[ImageHeader]]:
    """The slices of a series; of one that was acquired again, the last acquisition with the usual number of frames."""
    runs = [_acquisitions(place) for place in slices]
    usual = Counter(len(run) for place in runs for run in place).most_common(1)[0][0]
    images = Counter(map(len, slices)).most_common(1)[0][0]
    last = []
    for place, acquisitions in zip(slices, runs, strict=True):
        whole = [run for run in acquisitions if len(run) == usual >= MINIMUM_FRAMES]
        is_repeated = len(place) > images or _overlap(acquisitions)
        last.append(whole[-1] if whole and is_repeated else place)
    return last


def _acquisitions(place: Iterable[ImageHeader]) -> list[list[ImageHeader]]:
    runs: dict[int, list[ImageHeader]] = defaultdict(list)
    for image in place:
        runs[image.acquisition or 0].append(image)
    return [runs[number] for number in sorted(runs)]


def _overlap(runs: Sequence[Sequence[ImageHeader]]) -> bool:
    """Whether acquisitions cover the same part of the beat, instead of one part each."""
    times = [sorted(image.trigger_time for image in run if image.trigger_time is not None) for run in runs]
    ends = sorted((time[0], time[-1]) for time in times if time)
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(ends))


def _last_series(place: Sequence[ImageHeader]) -> list[ImageHeader]:
    """Of the images of one slice, those of the series with the highest number."""
    last = max((image.series_number, image.series) for image in place)
    return [image for image in place if (image.series_number, image.series) == last]


def _left(
    headers: Iterable[ImageHeader], cine: Cine, cines: Sequence[Cine], others: Mapping[str, str]
) -> Iterator[Unused]:
    """The images that are not part of the chosen cine, each with the reason."""
    used = {(image.uid, image.frame) for image in cine.images}
    left = _by_series(image for image in headers if (image.uid, image.frame) not in used)
    for uid, images in left.items():
        rivals = [rival for rival in cines if rival is not cine and uid in rival.series]
        for place in _places(images):
            if uid in others:
                why, is_doubt = others[uid], False
            elif uid in cine.series:
                why, is_doubt = _why_not_with_its_series(place, cine)
            else:
                why, is_doubt = _why_not(place, cine, rivals)
            for image in place:
                yield image.unused(why, is_doubt=is_doubt)


def _why_not_with_its_series(place: Sequence[ImageHeader], cine: Cine) -> tuple[str, bool]:
    if _same_grid(cine.slices[0][0], place[0]):
        return "acquired again later", False
    return f"another matrix, pixel size or orientation than the slices used{_MISSING}", True


def _why_not(place: Sequence[ImageHeader], cine: Cine, rivals: Sequence[Cine]) -> tuple[str, bool]:
    if len(place) < MINIMUM_FRAMES:
        return f"fewer than {MINIMUM_FRAMES} frames a slice", False
    if _continues(place, cine, rivals):
        return f"slices beyond those used, which cannot be joined to them{_MISSING}", True
    if not rivals and _repeats(place, cine):
        return "another acquisition of slices that are there", False
    if any(not rival.is_short_axis for rival in rivals):
        return "a cine that is no short axis", False
    if rivals:
        return "a cine of fewer slices or frames", False
    return f"a cine of fewer than {MINIMUM_SLICES} slices of one matrix and orientation", False


def _repeats(place: Sequence[ImageHeader], cine: Cine) -> bool:
    """Whether a slice has the position, matrix and orientation of one of the cine's."""
    projection = place[0].position @ cine.normal
    near = any(abs(projection - there[0].position @ cine.normal) < _SAME_PLACE_MM for there in cine.slices)
    return near and _same_grid(cine.slices[0][0], place[0])


def _continues(place: Sequence[ImageHeader], cine: Cine, rivals: Sequence[Cine]) -> bool:
    """Whether a slice lies just beyond an end of the cine, and belongs to no rival cine that overlaps with it."""
    if abs(place[0].normal @ cine.normal) < _NEARLY_PARALLEL:
        return False
    ends = [float(cine.slices[index][0].centre @ cine.normal) for index in (0, -1)]
    step = (ends[1] - ends[0]) / (len(cine.slices) - 1)

    def beyond(image: ImageHeader) -> float:
        projection = float(image.centre @ cine.normal)
        return max(ends[0] - projection, projection - ends[1]) / step

    reaches_in = any(beyond(other[0]) < 0.5 for rival in rivals for other in rival.slices)
    return 0.5 <= beyond(place[0]) < _REACH and not reaches_in


def _summary(headers: Sequence[ImageHeader]) -> str:
    parts = []
    for images in list(_by_series(headers).values())[:6]:
        directions = len(_parallel(images))
        places = len({np.round(image.position, 1).tobytes() for image in images})
        counted = ((len(images), "image"), (places, "place"), (directions, "orientation"))
        one, at, lying = (f"{number} {word}{'s' * (number != 1)}" for number, word in counted)
        parts.append(f"{series_name(images[0])}: {one} at {at} in {lying}")
    return "; ".join(parts)
