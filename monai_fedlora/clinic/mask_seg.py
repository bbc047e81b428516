"""Masks of end-diastole and end-systole as DICOM Segmentations.

There is one object for each of the two frames, because viewers lay the segments of an object over the images that it
refers to, and the slices of all frames lie at the same places. Each holds the segments as binary masks on the grid of
its images; slices without a structure have no frame of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora import __version__
from monai_fedlora.clinic.dicom_headers import MR_IMAGE, ImageHeader
from monai_fedlora.clinic.dicom_stack import Stack
from monai_fedlora.clinic.measured_study import MeasuredStudy
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.clinic.sources import Source
from monai_fedlora.clinic.sr_parts import MANUFACTURER, Algorithm
from monai_fedlora.errors import DataError
from monai_fedlora.measures.structures import LV, MYO, RV
from monai_fedlora.transforms.orientation import orient_like

SERIES_NUMBERS = {"ED": 9003, "ES": 9004}
SEGMENTS = {
    LV: ("LeftVentricle", "LV blood pool"),
    MYO: ("LeftVentricleMyocardium", "LV myocardium"),
    RV: ("RightVentricle", "RV blood pool"),
}
"""By structure: keyword of its SNOMED CT code, and the segment's label."""
_NOT_OF_ONE_IMAGE = {
    "PixelData", "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
}  # fmt: skip
_LABELS = {"ED": "end-diastole", "ES": "end-systole"}


def build_segmentations(measured: MeasuredStudy, sources: Sequence[Source]) -> dict[str, Any]:
    """Make the segmentations of a study.

    Args:
        measured: of a study that was read from DICOM; masks of LV, MYO and RV or some of them.
        sources: its objects with the images of ED and ES, as from
            :func:`monai_fedlora.clinic.sources.read_sources`, carried over or de-identified; patient and study are
            copied from them.

    Returns:
        ``highdicom.seg.Segmentation`` by phase, "ED" and "ES"; a phase whose mask is empty has none.

    Raises:
        DataError: the study was not read from DICOM, the masks lie on another grid than the images, or have structures
            without a code.
    """
    if unknown := [name for name in measured.structures if name not in SEGMENTS]:
        raise DataError(
            f"{', '.join(unknown)} has no code for a segmentation; there are codes of {', '.join(SEGMENTS)}"
        )
    stack, ed, es = measured.stack, measured.ed, measured.es
    if stack is None or ed is None or es is None:
        raise DataError(
            "the masks are not of a study that was read from DICOM; a segmentation has no study to belong to"
        )
    planes = _stored(measured, stack)
    headers = [stack.of_frame(frame) for frame in (ed, es)]
    paths = dict.fromkeys(header.path for group in headers for header in group)
    of_file = dict(zip(paths, sources, strict=True))
    return {
        phase: _segmentation(planes[index], headers[index], of_file, measured.structures, phase, measured.algorithm)
        for index, phase in enumerate(SERIES_NUMBERS)
        if planes[index].any()
    }


def _stored(measured: MeasuredStudy, stack: Stack) -> np.ndarray:
    """The masks (2, slices, rows, columns) in the order of the stored images, base first."""
    masks, affine = orient_like(measured.masks, measured.affine, stack.affine)
    if masks.shape[1:] != stack.shape[:3] or not np.allclose(affine, stack.affine, atol=1e-3):
        raise DataError(
            f"the masks of shape {masks.shape[1:]} do not lie on the grid of the images, {stack.shape[:3]}; bring them "
            "back to it first"
        )
    return np.ascontiguousarray(masks.transpose(0, 3, 2, 1).astype(np.uint8))


def _segmentation(
    planes: np.ndarray,
    headers: Sequence[ImageHeader],
    of_file: Mapping[Path, Source],
    structures: Sequence[str],
    phase: str,
    algorithm: Algorithm,
) -> Any:
    import highdicom as hd

    first = of_file[headers[0].path].dataset
    frame_of_reference = first.get("FrameOfReferenceUID") or hd.UID()
    orientation = [_number(value) for value in headers[0].axes.ravel()]
    distance = _number(abs(float((headers[1].position - headers[0].position) @ headers[0].normal)))
    images = [
        _plain_image(header, first, frame_of_reference=frame_of_reference, orientation=orientation, distance=distance)
        for header in headers
    ]
    segmentation: Any = hd.seg.Segmentation(
        source_images=images,
        pixel_array=planes,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=list(_descriptions(structures, algorithm)),
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS[phase],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.name[:64],
        software_versions=__version__,
        device_serial_number=algorithm.sha256[:16],
        content_label=f"HEART_{phase}",
        content_description=f"AI masks at {_LABELS[phase]}, research only",
        series_description=f"AI masks at {_LABELS[phase]}, research only",
    )
    segmentation.BodyPartExamined = "HEART"
    segmentation.ImageComments = NOT_FOR_CLINICAL_USE
    _refer(segmentation, images, [(of_file[header.path].dataset, header.frame) for header in headers])
    return segmentation


def _plain_image(
    header: ImageHeader, first: Any, *, frame_of_reference: str, orientation: Sequence[Any], distance: Any
) -> Any:
    """A classic image with the patient and study of ``first``, at the place of one image of the stack.

    That the images are one stack was decided when they were read. highdicom asks for more: one series, orientations
    that are equal to the last digit, and no other frames. It gets these images in place of the real ones, and the
    references are put right afterwards.
    """
    import highdicom as hd
    from pydicom.dataset import Dataset

    image: Any = Dataset()
    for element in first:
        if element.keyword not in _NOT_OF_ONE_IMAGE:
            image.add(copy.copy(element))
    image.file_meta = first.file_meta
    image.SOPClassUID, image.SOPInstanceUID = MR_IMAGE, hd.UID()
    image.FrameOfReferenceUID = frame_of_reference
    between_columns, between_rows = header.spacing
    image.PixelSpacing = [_number(between_rows), _number(between_columns)]
    image.ImagePositionPatient = [_number(value) for value in header.position]
    image.ImageOrientationPatient = orientation
    image.SliceThickness = image.SpacingBetweenSlices = distance
    return image


def _number(value: float) -> Any:
    """A number as DICOM's decimal string, whose 16 characters keep nine digits or more."""
    from pydicom.valuerep import DSfloat

    return DSfloat(float(value), auto_format=True)


def _refer(segmentation: Any, images: Sequence[Any], real: Sequence[tuple[Any, int | None]]) -> None:
    """Let a segmentation refer to the real images: a dataset each, with a frame number where it is an enhanced one."""
    from pydicom.dataset import Dataset

    real_of = {image.SOPInstanceUID: pair for image, pair in zip(images, real, strict=True)}
    of_frames = [item.DerivationImageSequence[0] for item in segmentation.PerFrameFunctionalGroupsSequence]
    for item in (item for each in (*of_frames, segmentation) for item in each.SourceImageSequence):
        if item.ReferencedSOPInstanceUID not in real_of:
            continue  # the frames of all segments of a slice share an item, which refers to the real image already
        dataset, frame = real_of[item.ReferencedSOPInstanceUID]
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        if frame is not None:
            item.ReferencedFrameNumber = frame
    series: dict[str, dict[str, Any]] = {}
    for dataset, _ in real:
        reference: Any = Dataset()
        reference.ReferencedSOPClassUID = dataset.SOPClassUID
        reference.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
        series.setdefault(dataset.SeriesInstanceUID, {})[dataset.SOPInstanceUID] = reference
    references = []
    for uid, instances in series.items():
        entry: Any = Dataset()
        entry.SeriesInstanceUID, entry.ReferencedInstanceSequence = uid, list(instances.values())
        references.append(entry)
    segmentation.ReferencedSeriesSequence = references


def _descriptions(structures: Sequence[str], algorithm: Algorithm) -> Iterator[Any]:
    """One segment for each structure, its number the structure's value."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    made_by = hd.AlgorithmIdentificationSequence(
        name=algorithm.name[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        source=MANUFACTURER,
        parameters={
            "model.ts": f"SHA-256 {algorithm.sha256}",
            "monai-fedlora": __version__,
            "training": algorithm.origin,
        },
    )
    for number, name in enumerate(structures, 1):
        code, label = SEGMENTS[name]
        yield hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=getattr(codes.SCT, code),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=made_by,
            tracking_uid=hd.UID(),
            tracking_id=label,
        )
