"""Decode the images of a stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.clinic.dicom_enhanced import classic_frames
from monai_fedlora.clinic.dicom_headers import ImageHeader, naming_damage, need_pydicom
from monai_fedlora.clinic.dicom_stack import Stack
from monai_fedlora.errors import DataError

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
    """The whole DICOM object of an image, its pixels not compressed and without what may hide beside them.

    Old scanners keep overlays, which can be text, in the unused bits of the pixels; these bits are cleared.

    Raises:
        DataError: it cannot be read or decoded.
    """
    pydicom = need_pydicom()
    with naming_damage(f"{image.path} cannot be decoded", "export it again, uncompressed"):
        dataset = pydicom.dcmread(image.path)
        check_size((dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1)), str(image.path))
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
        _clear_unused_bits(dataset)
        return dataset


def _clear_unused_bits(dataset: Any) -> None:
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    if allocated not in (8, 16) or not 0 < stored <= allocated or dataset.HighBit != stored - 1:
        raise ValueError(f"{stored} of {allocated} bits up to bit {dataset.HighBit} are no usual grey levels")
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    kind = "i" if dataset.PixelRepresentation else "u"
    count = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
    words = np.frombuffer(dataset.PixelData, f"{order}{kind}{allocated // 8}", count=count)
    spare = allocated - stored
    dataset.PixelData = ((words << spare) >> spare).tobytes()


def _grey_levels(images: Sequence[ImageHeader]) -> list[np.ndarray]:
    """(rows, columns) float32 of each of the images in one file."""
    first = images[0]
    dataset = read_dataset(first)
    with naming_damage(f"{first.path} has unusable pixels", "copy it again from the source"):
        pixels = dataset.pixel_array
        frames = [dataset] if first.frame is None else classic_frames(first.path, dataset)
        scales = [
            [float(frames[(image.frame or 1) - 1].get(name, unit)) for name, unit in _RESCALE] for image in images
        ]
    expected = first.shape[::-1] if len(frames) == 1 else (len(frames), *first.shape[::-1])
    if pixels.shape != expected:
        raise DataError(f"{first.path} has {pixels.shape} pixels, and its header says {expected}")
    pixels = pixels.reshape(len(frames), *first.shape[::-1])
    return [
        pixels[(image.frame or 1) - 1].astype(np.float32) * np.float32(slope) + np.float32(intercept)
        for image, (slope, intercept) in zip(images, scales, strict=True)
    ]
