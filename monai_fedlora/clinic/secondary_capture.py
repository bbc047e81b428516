"""A figure as a DICOM Secondary Capture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from monai_fedlora.clinic.report_sr import TITLE
from monai_fedlora.clinic.sources import Source
from monai_fedlora.clinic.sr_parts import MANUFACTURER

SERIES_NUMBER = 9002


def build_capture(figure: Image.Image, sources: Sequence[Source]) -> Any:
    """Put a figure into the study of its sources.

    Args:
        figure: RGB, without the name of a patient.
        sources: the images that it shows; patient and study are copied from the first.

    Returns:
        A ``highdicom.sc.SCImage`` that refers to every source.
    """
    import highdicom as hd
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes

    capture: Any = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=sources[0].dataset,
        pixel_array=np.asarray(figure.convert("RGB")),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_description=TITLE,
    )
    capture.PatientOrientation = ""  # undefined for several pictures
    capture.BodyPartExamined = "HEART"
    capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    capture.BurnedInAnnotation = "NO"
    capture.ImageComments = "Research only, not for clinical use. An aid, not evidence."
    references = []
    for source in sources:
        reference, image = Dataset(), source.dataset
        if source.frames:
            reference.ReferencedFrameNumber = list(source.frames)
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        reference.PurposeOfReferenceCodeSequence = [
            hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        ]
        references.append(reference)
    capture.SourceImageSequence = references
    return capture
