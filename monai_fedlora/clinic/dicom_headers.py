"""What the images of a DICOM study say about themselves, without their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.clinic.dicom_enhanced import ENHANCED_MR_IMAGE, GROUPS, classic_frames
from monai_fedlora.clinic.dicom_files import DIRECTORY, naming_damage, read_object
from monai_fedlora.errors import DataError

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_LARGEST_SIDE = 4096
_PHASES = frozenset({"P", "PHASE", "PHASE MAP", "PHASE CONTRAST", "VELOCITY", "VELOCITY MAP"})
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "PatientID", "ImageType", "InstanceNumber", "TriggerTime", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation",
    *GROUPS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """One image of a series.

    Attributes:
        path: its file.
        uid: SOP instance UID.
        frame: number from 1 in an enhanced (multi-frame) object; None for a classic image.
        series: series instance UID.
        series_number: of that series, 0 if it has none.
        description: of that series.
        instance_number: place in the series, or in time or the object in an enhanced one; None if it has none.
        trigger_time: ms after the R wave, None if unknown.
        shape: (columns, rows).
        spacing: distance (of columns, of rows) in mm.
        position: (3,) of the first pixel, mm, patient coordinates (left, posterior, superior).
        axes: (2, 3) unit vectors along a row and along a column.
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

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the image."""
        return np.cross(self.axes[0], self.axes[1])


def read_image_headers(files: Sequence[Path], origin: Path) -> list[ImageHeader]:
    """Read the MR images among the files of one study.

    An enhanced (multi-frame) object counts as its frames. Files that are not DICOM, directories of media and MR objects
    without a place in the patient (as scanned reports) are left out; of several files with one instance, all but the
    first.

    Args:
        files: the study's.
        origin: the folder or archive, for messages.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: there is no MR image, or there are several studies or patients; or a file is damaged.
    """
    datasets = [(path, dataset) for path in files if (dataset := _read(path)) is not None]
    if not datasets:
        raise DataError(f"{origin} holds no DICOM file")
    for keyword, what in (("StudyInstanceUID", "studies"), ("PatientID", "patients")):
        different = {text for path, dataset in datasets if (text := _text(path, dataset, keyword))}
        if len(different) > 1:
            raise DataError(f"{origin} holds images of {len(different)} {what}; give one study at a time")
    headers: dict[tuple[str, int | None], ImageHeader] = {}
    for path, dataset in datasets:
        for frame, image in _images(path, dataset):
            if "ImagePositionPatient" in image and not _is_phase(path, image):
                header = _header(path, image, frame)
                headers.setdefault((header.uid, frame), header)
    if not headers:
        raise DataError(f"{origin} holds no MR image that can be used: {_what_else(datasets)}")
    return list(headers.values())


def _read(path: Path) -> Any:
    """The header of a DICOM file; None if it is another kind of file."""
    dataset = read_object(path, _TAGS)
    if dataset is None or dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
        return None
    return dataset


def _reading(path: Path) -> AbstractContextManager[None]:
    return naming_damage(f"{path} is a damaged DICOM file", "copy it again from the source")


def _images(path: Path, dataset: Any) -> list[tuple[int | None, Any]]:
    """The MR images of a file, with their frame numbers in an enhanced object."""
    with _reading(path):
        kind = dataset.get("SOPClassUID")
        if kind == ENHANCED_MR_IMAGE:
            return list(enumerate(classic_frames(path, dataset), 1))
        return [(None, dataset)] if kind == MR_IMAGE else []


def _header(path: Path, dataset: Any, frame: int | None) -> ImageHeader:
    rows, columns = (int(_numbers(path, dataset, name, 1)[0]) for name in ("Rows", "Columns"))
    if not (0 < rows <= _LARGEST_SIDE and 0 < columns <= _LARGEST_SIDE):
        raise DataError(f"{path} has {columns} x {rows} pixels, which no MR image has")
    with _reading(path):
        is_grey = (dataset.get("SamplesPerPixel") or 1) == 1 and (
            dataset.get("PhotometricInterpretation") or "MONOCHROME2"
        ) == "MONOCHROME2"
    if not is_grey:
        raise DataError(f"{path} does not hold grey levels (MONOCHROME2); export the original images")
    down, across = _numbers(path, dataset, "PixelSpacing", 2)
    axes = np.array(_numbers(path, dataset, "ImageOrientationPatient", 6)).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise DataError(f"{path} has an impossible orientation {axes.ravel().tolist()}; export the study again")
    uid, series = (_text(path, dataset, keyword) for keyword in ("SOPInstanceUID", "SeriesInstanceUID"))
    if not (uid and series):
        raise DataError(f"{path} has no instance or series UID; export the study again from the scanner")
    number = _optional(path, dataset, "InstanceNumber")
    return ImageHeader(
        path=path,
        uid=uid,
        frame=frame,
        series=series,
        series_number=int(_optional(path, dataset, "SeriesNumber") or 0),
        description=_text(path, dataset, "SeriesDescription"),
        instance_number=None if number is None else int(number),
        trigger_time=_optional(path, dataset, "TriggerTime"),
        shape=(columns, rows),
        spacing=(across, down),
        position=np.array(_numbers(path, dataset, "ImagePositionPatient", 3)),
        axes=axes,
    )


def _numbers(path: Path, dataset: Any, keyword: str, count: int) -> tuple[float, ...]:
    with naming_damage(f"{path} has no usable {keyword}", "export the study again from the scanner"):
        value = dataset[keyword].value
        numbers = tuple(float(number) for number in (value if count > 1 else [value]))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise DataError(f"{path} has {len(numbers)} numbers as {keyword}, and {count} finite ones are needed")
    return numbers


def _optional(path: Path, dataset: Any, keyword: str) -> float | None:
    try:
        with _reading(path):
            is_there = dataset.get(keyword) not in (None, "")
    except DataError:
        return None
    return _numbers(path, dataset, keyword, 1)[0] if is_there else None


def _is_phase(path: Path, dataset: Any) -> bool:
    """Whether an image shows velocities or phases, which some scanners store beside the grey levels."""
    with _reading(path):
        return not _PHASES.isdisjoint(dataset.get("ImageType") or ())


def _text(path: Path, dataset: Any, keyword: str) -> str:
    with _reading(path):
        return str(dataset.get(keyword) or "")


def _what_else(datasets: Sequence[tuple[Path, Any]]) -> str:
    modalities = sorted({_text(path, dataset, "Modality") or "unknown" for path, dataset in datasets})
    return f"its modality is {', '.join(modalities)}, and MR images with a position in the patient are needed"
