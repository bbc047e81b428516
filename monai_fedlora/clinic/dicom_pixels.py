"""Decode the pixels of a cine's DICOM images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.clinic.dicom_enhanced import classic_frames
from monai_fedlora.clinic.dicom_headers import ImageHeader
from monai_fedlora.clinic.dicom_stack import Stack
from monai_fedlora.errors import DataError
from monai_fedlora.formats.dicom_files import EXPLICIT_BIG, EXPLICIT_LITTLE, naming_damage, read_object

MAXIMUM_VOXELS = 1 << 28
_RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))


def read_voxels(stack: Stack) -> np.ndarray:
    """Decode every image.

    Returns:
        (X, Y, Z, T) float32 grey levels, rescaled as each image says.

    Raises:
        DataError: an image cannot be decoded, or there are more voxels than a cine has; the message names the file.
    """
    columns, rows, slices, frames = stack.shape
    check_size(stack.shape, str(stack.images[0][0].path.parent))
    voxels = np.empty((columns, rows, slices, frames), np.float32)
    by_file: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for place, images in enumerate(stack.images):
        for time, image in enumerate(images):
            by_file[image.path].append((place, time))
    for places in by_file.values():
        chosen = [stack.images[place][time] for place, time in places]
        for (place, time), levels in zip(places, _grey_levels(chosen), strict=True):
            voxels[..., place, time] = levels.T
    return voxels


def check_size(shape: tuple[int, ...], origin: str) -> None:
    """Refuse a cine that would fill the memory.

    Raises:
        DataError: it has more than :data:`MAXIMUM_VOXELS` (ours).
    """
    if np.prod(shape, dtype=float) > MAXIMUM_VOXELS:
        raise DataError(f"{origin}: {' x '.join(map(str, shape))} voxels are more than a cine has; is this one study?")


def read_dataset(image: ImageHeader) -> Any:
    """The whole DICOM object of an image, uncompressed, in explicit VR little endian.

    Old scanners keep overlays, which can be text, in the unused bits of the pixels; these bits are cleared.

    Raises:
        DataError: it cannot be read or decoded.
    """
    dataset = read_object(image.path)
    with naming_damage(f"{image.path} cannot be decoded", "export it again, uncompressed"):
        check_size((dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1)), str(image.path))
        _fill_in(dataset)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
        words = _clean_words(dataset)
        dataset.add_new(
            "PixelData", "OB" if words.itemsize == 1 else "OW", words.tobytes() + b"\0" * (words.nbytes % 2)
        )
        dataset.file_meta.TransferSyntaxUID = type(dataset.file_meta.TransferSyntaxUID)(EXPLICIT_LITTLE)
        return dataset


def _fill_in(dataset: Any) -> None:
    """Fill in empty attributes of the pixels that the others imply."""
    implied = {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsStored": dataset.BitsAllocated,
        "HighBit": (dataset.get("BitsStored") or dataset.BitsAllocated) - 1,
        "PixelRepresentation": 0,
    }
    for keyword, value in implied.items():
        if dataset.get(keyword) in (None, ""):
            setattr(dataset, keyword, value)


def _clean_words(dataset: Any) -> np.ndarray:
    """The pixel values, little endian, with the unused bits cleared."""
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    if allocated not in (8, 16) or not 0 < stored <= allocated or dataset.HighBit != stored - 1:
        raise ValueError(f"{stored} of {allocated} bits up to bit {dataset.HighBit} are no usual grey levels")
    raw = dataset.PixelData
    if dataset.file_meta.TransferSyntaxUID == EXPLICIT_BIG and dataset["PixelData"].VR == "OW":
        raw = np.frombuffer(raw, ">u2").astype("<u2").tobytes()  # a word holds two pixels of 8 bits
    kind = "i" if dataset.PixelRepresentation else "u"
    count = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
    words = np.frombuffer(raw, f"<{kind}{allocated // 8}", count=count)
    spare = allocated - stored
    cleaned: np.ndarray = (words << spare) >> spare
    return cleaned


def _grey_levels(images: Sequence[ImageHeader]) -> list[np.ndarray]:
    """(rows, columns) float32 of each of the images in one file."""
    first = images[0]
    dataset = read_dataset(first)
    with naming_damage(f"{first.path} has unusable pixels", "copy it again from the source"):
        pixels = dataset.pixel_array
        frames = [dataset] if first.frame is None else classic_frames(first.path, dataset)
        scales = [[_scale(frames[(image.frame or 1) - 1], name, unit) for name, unit in _RESCALE] for image in images]
    expected = first.shape[::-1] if len(frames) == 1 else (len(frames), *first.shape[::-1])
    if pixels.shape != expected:
        raise DataError(f"{first.path} has {pixels.shape} pixels, and its header says {expected}")
    pixels = pixels.reshape(len(frames), *first.shape[::-1])
    return [
        pixels[(image.frame or 1) - 1].astype(np.float32) * np.float32(slope) + np.float32(intercept)
        for image, (slope, intercept) in zip(images, scales, strict=True)
    ]


def _scale(frame: Any, keyword: str, unit: float) -> float:
    """RescaleSlope or RescaleIntercept of a frame; ``unit`` if missing or empty."""
    value = frame.get(keyword)
    number = unit if value in (None, "") else float(value)
    if not math.isfinite(number) or (keyword == "RescaleSlope" and number == 0):
        raise ValueError(f"{number} is no {keyword}")
    return number
