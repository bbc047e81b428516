"""Put the slices and frames of a short-axis cine in order.

Slices are ordered by their position along the normal of the image plane, base first. The first axis of an array runs
along the columns and the second along the rows, as in the files of ACDC and M&Ms that models are trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_fedlora.clinic.dicom_headers import ImageHeader, StudyImages
from monai_fedlora.clinic.dicom_series import UNEVEN, Cine, choose_cine, series_name
from monai_fedlora.clinic.dicom_time import order_frames
from monai_fedlora.clinic.omissions import Omission, quote, summarise
from monai_fedlora.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A short-axis cine.

    Attributes:
        images: by slice from base to apex, then by frame.
        affine: (4, 4) voxel (column, row, slice) to world in mm, in NIfTI's coordinates (right, anterior, superior).
        times: ms after the R wave of each frame, median of the slices; None if the images do not say.
        notes: remarks for the reader of the answer, including what was left out.
        doubts: reasons why this may be no usable short-axis cine.
        omissions: images and files of the study that were not used.
        quotes: sentences with names of series and files, which may name a person.
    """

    images: tuple[tuple[ImageHeader, ...], ...]
    affine: np.ndarray
    times: tuple[float, ...] | None
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    omissions: tuple[Omission, ...] = ()
    quotes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(columns, rows, slices, frames)."""
        return (*self.images[0][0].shape, len(self.images), len(self.images[0]))

    def of_frame(self, frame: int) -> tuple[ImageHeader, ...]:
        """The images of one time, base first."""
        return tuple(images[frame] for images in self.images)


def find_stack(images: StudyImages, origin: Path, *, names: Mapping[Path, str] | None = None) -> Stack:
    """Choose and order the short-axis cine of a study, and count everything else.

    Args:
        images: of the study.
        origin: the folder or archive, for messages.
        names: original names of the files, where they are stored under others.

    Raises:
        DataError: there is no short-axis cine, or several (:func:`monai_fedlora.clinic.dicom_series.choose_cine`); a
            slice or frame is missing or there twice; the slices are shifted against each other, or out of step
            (:func:`monai_fedlora.clinic.dicom_time.order_frames`).
    """
    chosen = choose_cine(images, origin)
    cine, omissions = chosen.cine.from_apex, summarise(chosen.unused)
    missing = tuple(str(omission) for omission in omissions if omission.is_doubt)
    doubts = list(missing)
    notes = [*chosen.notes, *(str(omission) for omission in omissions if not omission.is_doubt)]
    if not cine.is_short_axis:
        doubts.append("the slices do not lie across the usual axis of a heart; they may not be the short axis")
    base_first = cine.slices[::-1]
    _check_complete(base_first, missing, origin)
    step = _step(base_first, cine, missing, origin)
    timing = order_frames(base_first, origin)
    if len(cine.series) > 1:
        notes.append(f"the slices are of {len(cine.series)} series; of a repeated slice the last acquisition is used")
    used = {(image.series_number, image.description) for place in base_first for image in place}
    return Stack(
        images=timing.images,
        affine=_affine(timing.images[0][0], step),
        times=timing.times,
        notes=(*notes, *timing.notes),
        doubts=(*doubts, *timing.doubts),
        omissions=omissions,
        quotes=quote(chosen.unused, sorted(used), names or {}),
    )


def _check_complete(slices: Sequence[Sequence[ImageHeader]], missing: Sequence[str], origin: Path) -> None:
    counts = [len(place) for place in slices]
    usual = Counter(counts).most_common(1)[0][0]
    for number, (place, count) in enumerate(zip(slices, counts, strict=True), 1):
        if count != usual:
            raise DataError(
                f"{origin}: slice {number} from the base has {count} frames, and the others {usual} "
                f"({series_name(place[0])}); images are missing or there twice, so export the series again"
                f"{_also(missing)}"
            )


def _also(missing: Sequence[str]) -> str:
    return "".join(f" ({sentence})" for sentence in missing)


def _step(slices: Sequence[Sequence[ImageHeader]], cine: Cine, missing: Sequence[str], origin: Path) -> np.ndarray:
    """(3,) mm from one slice to the next, after checking that slices are evenly spaced and not shifted."""
    positions = np.array([place[0].position for place in slices])
    distances = -np.diff(positions @ cine.normal)
    usual = float(np.median(distances))
    for number, distance in enumerate(distances, 1):
        if abs(distance - usual) > UNEVEN * usual:
            raise DataError(
                f"{origin}: slices {number} and {number + 1} from the base are {distance:.1f} mm apart, and the others "
                f"{usual:.1f} mm; a slice is missing or of another series{_also(missing)}"
            )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    steps = np.arange(len(positions))[:, None] * step
    astray = np.abs((positions - positions[0] - steps) @ slices[0][0].axes.T)
    if (astray > max(slices[0][0].spacing)).any() or np.linalg.norm(step) > 1.02 * usual:
        raise DataError(f"{origin}: its slices are shifted against each other in their plane; they are not one stack")
    return step


def _affine(image: ImageHeader, step: np.ndarray) -> np.ndarray:
    columns = (image.axes[0] * image.spacing[0], image.axes[1] * image.spacing[1], step, image.position)
    affine = np.vstack([np.column_stack(columns), (0.0, 0.0, 0.0, 1.0)])
    affine[:2] *= -1.0  # from DICOM's left and posterior to NIfTI's right and anterior
    return affine
