"""The frames of an enhanced (multi-frame) MR object, each as the classic MR image that it stands for.

What a classic image says of itself stands here in functional groups (PS3.3, C.7.6.16): those shared by all frames, and
those of each frame, which win. Frames are counted from 1, as in references to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.errors import DataError

MULTIFRAME = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""SOP classes: Enhanced MR Image, and Legacy Converted Enhanced MR Image, which archives make of classic images."""
GROUPS = ("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""What has to be read of an object before its frames can be told."""

_CONVERTED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")


def _converted(keyword: str) -> tuple[tuple[str, str], ...]:
    """Where a legacy converted object keeps what a classic image said and no functional group says."""
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
"""By the name in a classic image: the functional groups, and the attributes in them, that say the same."""

_COMPONENT = ("MRImageFrameTypeSequence", "ComplexImageComponent")


def classic_frames(path: Path, dataset: Any) -> list[Any]:
    """Say of every frame what a classic image would.

    Args:
        path: of the object, for messages.
        dataset: the object (pydicom dataset); its pixels are not needed.

    Returns:
        By frame, a pydicom dataset with what concerns all frames and the attributes of :data:`_PLACES` that are known.
        ``InstanceNumber`` is the number of the frame, unless a legacy converted object says the classic image's.

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
    """The first value found, a frame's own before a shared one; None if there is none."""
    for sequence, keyword in places:
        for group in groups:
            value = _first(group, sequence).get(keyword)
            if value is not None and value != "":
                return value
    return None


def _first(dataset: Any, sequence: str) -> Any:
    """The one item of a sequence; empty where it is missing or is no sequence."""
    items = dataset.get(sequence)
    is_there = isinstance(items, Sequence) and not isinstance(items, str | bytes) and len(items) > 0
    return items[0] if is_there and hasattr(items[0], "get") else {}
