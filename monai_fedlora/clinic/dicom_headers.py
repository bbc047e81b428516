"""Read the headers of a DICOM study's MR images, and count the files that are something else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.clinic.dicom_enhanced import GROUPS, MULTIFRAME, classic_frames
from monai_fedlora.clinic.dicom_kinds import why_no_cine
from monai_fedlora.clinic.omissions import Unused, summarise
from monai_fedlora.errors import DataError
from monai_fedlora.formats.dicom_files import DIRECTORY, naming_damage, read_object

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_LARGEST_SIDE = 4096
_TAGS = (
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "PatientID",
    "ImageType", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime",
    "NominalCardiacTriggerDelayTime", "InversionTime", "EchoTime", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", *GROUPS,
)  # fmt: skip
_FOREIGN = "no DICOM"
_DAMAGED = "damaged, so that a part of the heart may be missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """One image of a series.

    Attributes:
        path: its file.
        uid: SOP instance UID.
        frame: number from 1 in an enhanced (multi-frame) object; None for a classic image.
        series: series instance UID.
        series_number: SeriesNumber, 0 if missing.
        description: SeriesDescription.
        instance_number: InstanceNumber, in an enhanced object that of the frame; None if missing.
        trigger_time: ms after the R wave, None if unknown.
        shape: (columns, rows).
        spacing: distance (of columns, of rows) in mm.
        position: (3,) of the first pixel, mm, patient coordinates (left, posterior, superior).
        axes: (2, 3) unit vectors along a row and along a column.
        acquisition: AcquisitionNumber, None if missing.
        temporal_position: TemporalPositionIdentifier, None if missing.
        inversion_time: ms, None if unknown.
        echo_time: ms, None if unknown.
    """

    path: Path
    uid: str
    frame: int | None = None
    series: str
    series_number: int
    description: str
    instance_number: int | None
    trigger_time: float | None
    shape: tuple[int, int]
    spacing: tuple[float, float]
    position: np.ndarray
    axes: np.ndarray
    acquisition: int | None = None
    temporal_position: int | None = None
    inversion_time: float | None = None
    echo_time: float | None = None

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the image."""
        return np.cross(self.axes[0], self.axes[1])

    @property
    def centre(self) -> np.ndarray:
        """(3,) of the middle of the image, mm, patient coordinates."""
        return self.position + 0.5 * ((np.array(self.shape) - 1) * self.spacing) @ self.axes

    def unused(self, why: str, *, is_doubt: bool = False) -> Unused:
        """This image as an entry of the list of unused images."""
        return Unused(
            path=self.path,
            why=why,
            series=self.series,
            series_number=self.series_number,
            description=self.description,
            is_doubt=is_doubt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyImages:
    """The images of a study, and its other files.

    Attributes:
        headers: MR images that may belong to a cine.
        unused: other images and files.
        notes: remarks for the reader of the answer.
    """

    headers: tuple[ImageHeader, ...]
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()


class _UnusableError(Exception):
    """An image cannot belong to a cine; the message says why."""


def read_image_headers(files: Sequence[Path], origin: Path) -> StudyImages:
    """Read the MR images among the files of one study.

    Each frame of an enhanced (multi-frame) object is an image. Everything else is listed as unused with a reason: files
    that are no DICOM or damaged, DICOMDIR files, other kinds of objects, duplicates, images of another kind
    (:mod:`monai_fedlora.clinic.dicom_kinds`), without a position in the patient, or without grey levels.

    Args:
        files: the study's.
        origin: the folder or archive, for messages.

    Raises:
        ConfigError: a file is DICOM, and pydicom is not installed.
        DataError: there is no MR image that can be used, there are several studies or patients, or two different images
            have one UID.
    """
    headers: dict[tuple[str, int | None], ImageHeader] = {}
    unused: list[Unused] = []
    identities: dict[str, set[str]] = {"StudyInstanceUID": set(), "PatientID": set()}
    damage: list[str] = []
    for path in files:
        try:
            with naming_damage(f"{path} is a damaged DICOM file", "copy it again from the source"):
                dataset = read_object(path, _TAGS)
                if dataset is not None:
                    for keyword, known in identities.items():
                        known.add(_text(dataset, keyword))
                images = list(_images(path, dataset))
        except DataError as error:
            damage.append(str(error))
            unused.append(Unused(path=path, why=_DAMAGED, is_doubt=True))
            continue
        for image in images:
            if isinstance(image, Unused):
                unused.append(image)
                continue
            first = headers.setdefault((image.uid, image.frame), image)
            if first is not image:
                unused.append(_copy(first, image))
    notes = _check_identities(identities, origin)
    if not headers:
        if all(one.why == _FOREIGN for one in unused):
            raise DataError(f"{origin} holds no DICOM file")
        others = "; ".join([*map(str, summarise(unused)), *damage[:1]])
        raise DataError(
            f"{origin} holds no MR image that can be used; {others}; export the short-axis cine as MR images with "
            "their positions in the patient"
        )
    return StudyImages(headers=tuple(headers.values()), unused=tuple(unused), notes=notes)


def _images(path: Path, dataset: Any) -> Iterator[ImageHeader | Unused]:
    """The MR images of a file, or why there are none."""
    if dataset is None:
        yield Unused(path=path, why=_FOREIGN)
        return
    kind = dataset.get("SOPClassUID")
    if dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
        yield Unused(path=path, why="a directory of media (DICOMDIR)")
        return
    if kind not in (MR_IMAGE, *MULTIFRAME):
        name = getattr(kind, "name", "")
        what = "of a private kind" if not name or name == str(kind) else name
        yield Unused(path=path, why=f"no MR image but {what}")
        return
    frames = enumerate(classic_frames(path, dataset), 1) if kind in MULTIFRAME else [(None, dataset)]
    for frame, image in frames:
        try:
            if other := why_no_cine(_values(image, "ImageType")):
                raise _UnusableError(other)
            yield _header(path, image, frame)
        except _UnusableError as error:
            yield Unused(
                path=path,
                why=str(error),
                series=_text(image, "SeriesInstanceUID"),
                series_number=_integer(image, "SeriesNumber") or 0,
                description=_text(image, "SeriesDescription"),
                lacks=other is None,
            )


def _copy(first: ImageHeader, second: ImageHeader) -> Unused:
    same = (
        first.series == second.series
        and first.instance_number == second.instance_number
        and first.trigger_time == second.trigger_time
        and np.array_equal(first.position, second.position)
        and np.array_equal(first.axes, second.axes)
    )
    if not same:
        raise DataError(
            f"{first.path} and {second.path} are different images with one SOP instance UID; export the study again "
            "from the scanner"
        )
    return second.unused("copies of images that are there")


def _check_identities(identities: dict[str, set[str]], origin: Path) -> tuple[str, ...]:
    studies = identities["StudyInstanceUID"] - {""}
    if len(studies) > 1:
        raise DataError(f"{origin} holds images of {len(studies)} studies; give one study at a time")
    codes = identities["PatientID"] - {""}
    spellings = {re.sub(r"[\W_]+", "", code).casefold().lstrip("0") for code in codes}
    if len(spellings) > 1:
        raise DataError(f"{origin} holds images of {len(spellings)} patients; give one study at a time")
    return () if len(codes) < 2 else (f"the patient's code is written in {len(codes)} ways",)


def _header(path: Path, dataset: Any, frame: int | None) -> ImageHeader:
    rows, columns = (int(_numbers(dataset, name, 1)[0]) for name in ("Rows", "Columns"))
    if not (0 < rows <= _LARGEST_SIDE and 0 < columns <= _LARGEST_SIDE):
        raise _UnusableError(f"{columns} x {rows} pixels, which no MR image has")
    samples, levels = dataset.get("SamplesPerPixel") or 1, dataset.get("PhotometricInterpretation") or "MONOCHROME2"
    if samples != 1 or levels != "MONOCHROME2":
        raise _UnusableError("no grey levels (MONOCHROME2)")
    down, across = _numbers(dataset, "PixelSpacing", 2)
    if min(down, across) <= 0:
        raise _UnusableError("no usable PixelSpacing")
    axes = np.array(_numbers(dataset, "ImageOrientationPatient", 6)).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise _UnusableError("an impossible orientation")
    uid, series = (_text(dataset, keyword) for keyword in ("SOPInstanceUID", "SeriesInstanceUID"))
    if not (uid and series):
        raise _UnusableError("no instance or series UID")
    trigger = _optional(dataset, "TriggerTime")
    return ImageHeader(
        path=path,
        uid=uid,
        frame=frame,
        series=series,
        series_number=_integer(dataset, "SeriesNumber") or 0,
        description=_text(dataset, "SeriesDescription"),
        instance_number=_integer(dataset, "InstanceNumber"),
        trigger_time=_optional(dataset, "NominalCardiacTriggerDelayTime") if trigger is None else trigger,
        shape=(columns, rows),
        spacing=(across, down),
        position=np.array(_numbers(dataset, "ImagePositionPatient", 3)),
        axes=axes,
        acquisition=_integer(dataset, "AcquisitionNumber"),
        temporal_position=_integer(dataset, "TemporalPositionIdentifier"),
        inversion_time=_optional(dataset, "InversionTime"),
        echo_time=_optional(dataset, "EchoTime"),
    )


def _numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...]:
    try:
        value = dataset[keyword].value
        numbers = tuple(float(number) for number in (value if count > 1 else [value]))
    except Exception as error:  # pydicom reports damage in a dozen ways
        raise _UnusableError(f"no usable {keyword}") from error
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise _UnusableError(f"no usable {keyword}")
    return numbers


def _optional(dataset: Any, keyword: str) -> float | None:
    try:
        return _numbers(dataset, keyword, 1)[0]
    except _UnusableError:
        return None


def _integer(dataset: Any, keyword: str) -> int | None:
    number = _optional(dataset, keyword)
    return None if number is None else int(number)


def _values(dataset: Any, keyword: str) -> Sequence[Any]:
    value = dataset.get(keyword)
    return () if value is None else [value] if isinstance(value, str) else list(value)


def _text(dataset: Any, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()
