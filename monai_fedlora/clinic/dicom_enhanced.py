"""Split an enhanced (multi-frame) MR object into its frames, each described like a classic MR image.

An enhanced object keeps the attributes of a classic image in functional groups (PS3.3, C.7.6.16): some shared by all
frames, and some for each frame, which take precedence. Frames are numbered from 1, as DICOM references them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.errors import DataError

MULTIFRAME = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""SOP classes: Enhanced MR Image, and Legacy Converted Enhanced MR Image, which archives make from classic images."""
GROUPS = ("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""Attributes that :func:`classic_frames` needs."""

_CONVERTED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")


def _converted(keyword: str) -> tuple[tuple[str, str], ...]:
    """Where a legacy converted object keeps an attribute of the classic image that no functional group holds."""
    return tuple((sequence, keyword) for sequence in _CONVERTED)


_PLACES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "PixelSpacing": (("PixelMeasuresSequence", "PixelSpacing"),),
    "ImagePositionPatient": (("PlanePositionSequence", "ImagePositionPatient"),),
    "ImageOrientationPatient": (("PlaneOrientationSequence", "ImageOrientationPatient"),),
    "TriggerTime": (
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        ("CardiacSynchronizationSequence", "ActualCardiacTriggerDelayTime"),
        *_converted("TriggerTime"),
    ),
    "TemporalPositionIdentifier": (
        ("FrameContentSequence", "TemporalPositionIndex"),
        *_converted("TemporalPositionIdentifier"),
    ),
    "InstanceNumber": _converted("InstanceNumber"),
    "AcquisitionNumber": (("FrameContentSequence", "FrameAcquisitionNumber"),),
    "InversionTime": (("MRModifierSequence", "InversionTimes"), *_converted("InversionTime")),
    "EchoTime": (("MREchoSequence", "EffectiveEchoTime"), *_converted("EchoTime")),
    "ImageType": (("MRImageFrameTypeSequence", "FrameType"), *_converted("ImageType")),
    "RescaleSlope": (("PixelValueTransformationSequence", "RescaleSlope"),),
    "RescaleIntercept": (("PixelValueTransformationSequence", "RescaleIntercept"),),
}
"""By attribute of a classic image: the functional groups, and the attributes in them, with the same meaning."""

_COMPONENT = ("MRImageFrameTypeSequence", "ComplexImageComponent")


def classic_frames(path: Path, dataset: Any) -> list[Any]:
    """Describe every frame like a classic image.

    Args:
        path: of the object, for messages.
        dataset: the object (pydicom dataset); its pixels are not needed.

    Returns:
        For each frame a pydicom dataset with the attributes common to all frames and those of :data:`_PLACES` that the
        functional groups give. ``InstanceNumber`` is the number of the frame, or in a legacy converted object that of
        the classic image.

    Raises:
        DataError: there are no functional groups, or not as many as frames.
    """
    from pydicom.dataset import Dataset

    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    number = dataset.get("NumberOfFrames")
    if not groups or number is None or len(groups) != number:
        raise DataError(
            f"{path} says that it has {number or 'no'} frames, and describes {len(groups or ())}; export it again"
        )
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    left_out = (*GROUPS, *_PLACES, "PixelData")
    common = [element for element in dataset if element.keyword not in left_out]
    frames = []
    for index, group in enumerate(groups, 1):
        frame = Dataset()
        for element in common:
            frame.add(element)
        frame.InstanceNumber = index
        frame.ImageType = dataset.get("ImageType")
        for keyword, places in _PLACES.items():
            value = _value((group, shared), places)
            if keyword == "InversionTime" and isinstance(value, Sequence):
                value = value[0]
            if value is not None:
                setattr(frame, keyword, f"{value:.9g}" if type(value) is float else value)
        component = _value((group, shared), (_COMPONENT,))
        if component:
            frame.ImageType = [*(frame.get("ImageType") or ()), str(component)]
        frames.append(frame)
    return frames


def _value(groups: Sequence[Any], places: Sequence[tuple[str, str]]) -> Any:
    """The first value found, from the frame's own groups before the shared ones; None if there is none."""
    for sequence, keyword in places:
        for group in groups:
            value = _first(group, sequence).get(keyword)
            if value is not None and value != "":
                return value
    return None


def _first(dataset: Any, sequence: str) -> Any:
    """The first item of a sequence; empty if the sequence is missing or of another type."""
    items = dataset.get(sequence)
    is_there = isinstance(items, Sequence) and not isinstance(items, str | bytes) and len(items) > 0
    return items[0] if is_there and hasattr(items[0], "get") else {}
