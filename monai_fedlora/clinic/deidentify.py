"""De-identify DICOM images.

An allow-list decides, and is stricter than PS3.15 (annex E, Basic Application Level Confidentiality Profile): only
attributes that describe the pixels, their position and the acquisition are kept. Everything else is removed, known or
not: private attributes, sequences, overlays, curves, comments, dates and device numbers. UIDs (except the SOP class)
and the patient's ID are replaced by keyed hashes, so that images of one patient stay together; without the secret
nobody can tell whose they are.

Pixels are not changed (no Clean Pixel Data Option); images whose header says that text is burned in are refused. Dates
and times are removed (no Retain Longitudinal Temporal Information Option).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any

from monai_fedlora.clinic.dicom_enhanced import MULTIFRAME
from monai_fedlora.errors import PrivacyError
from monai_fedlora.formats.dicom_files import need_pydicom

KEPT = frozenset({
    "SOPClassUID", "SpecificCharacterSet", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID", "Modality", "SeriesNumber", "InstanceNumber", "AcquisitionNumber", "ImageType",
    "ImagesInAcquisition", "BodyPartExamined", "Laterality", "PatientPosition", "Manufacturer", "ManufacturerModelName",
    "MagneticFieldStrength", "BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness",
    "SpacingBetweenSlices", "SliceLocation", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "SmallestImagePixelValue",
    "LargestImagePixelValue", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "AngioFlag", "RepetitionTime",
    "EchoTime", "InversionTime", "EchoTrainLength", "EchoNumbers", "NumberOfAverages", "ImagingFrequency", "FlipAngle",
    "VariableFlipAngleFlag", "PercentSampling", "PercentPhaseFieldOfView", "PixelBandwidth", "AcquisitionMatrix",
    "InPlanePhaseEncodingDirection", "ReconstructionDiameter", "TriggerTime", "NominalInterval",
    "CardiacNumberOfImages",
})  # fmt: skip
"""Attributes of an image that are kept; the UIDs among them, except SOPClassUID, are replaced."""

_EMPTIED = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "StudyID",
    "PositionReferenceIndicator",
)  # fmt: skip
"""Attributes that an image must have, possibly empty (type 2): here always empty."""

_PRESENT = (
    "Manufacturer", "SeriesNumber", "InstanceNumber", "ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength",
    "SliceThickness", "Laterality",
)  # fmt: skip
"""Further attributes that an MR image must have (type 2; Laterality unless the body part is unpaired): empty where the
scanner left them out."""

_DATE, _TIME = "19000101", "000000"
_METHOD = "PS3.15 Basic Profile, allow-list of attributes"


class Deidentifier:
    """Replaces identities, consistently over all images of one object.

    Args:
        secret: key of the hashes; by default random, and lost with this object. Who knows the secret and a patient's ID
            can find the patient's images.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    def uid(self, uid: str) -> str:
        """The UID that replaces another."""
        return f"2.25.{int.from_bytes(self._hash('uid', uid)[:16], 'big')}"

    def patient(self, code: str) -> str:
        """The ID that replaces a patient's."""
        return f"ANON-{base64.b32encode(self._hash('patient', code)[:10]).decode()}"

    def image(self, dataset: Any) -> Any:
        """Return a copy of a DICOM image without identities.

        Args:
            dataset: pydicom dataset, explicit VR little endian, its pixels not compressed. It is not changed.

        Raises:
            PrivacyError: the image says that text is burned into its pixels, or is an enhanced one.
        """
        pydicom = need_pydicom()
        if dataset.get("SOPClassUID") in MULTIFRAME:
            raise PrivacyError(
                "the images are enhanced (multi-frame) ones, whose functional groups are not de-identified; no "
                "de-identified DICOM was written. Export them as classic MR images, or keep the identity "
                "(--keep-identity) for the archive that the study comes from"
            )
        if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
            raise PrivacyError(
                "the images say that text is burned into their pixels, which may name the patient; no de-identified "
                "DICOM was written. Use images without burned-in text"
            )
        clean = pydicom.Dataset()
        for element in dataset:
            if element.keyword not in KEPT or element.VR == "SQ" or _is_misplaced(element, dataset):
                continue
            value = element.value
            if element.is_empty:
                continue
            if element.VR == "UI" and element.keyword != "SOPClassUID":
                value = self.uid(str(value))
            clean.add_new(element.tag, element.VR, value)
        for keyword in (*_EMPTIED, *(keyword for keyword in _PRESENT if keyword not in clean)):
            setattr(clean, keyword, None)
        clean.PatientID = self.patient(str(dataset.get("PatientID") or dataset.StudyInstanceUID))
        clean.PatientName = clean.PatientID.replace("-", "^")
        mark(clean)
        clean.file_meta = pydicom.dataset.FileMetaDataset()
        clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID
        clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
        clean.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
        return clean

    def _hash(self, kind: str, text: str) -> bytes:
        return hmac.new(self._secret, f"{kind}:{text}".encode(), hashlib.sha256).digest()


def _is_misplaced(element: Any, dataset: Any) -> bool:
    """Whether PS3.3 (C.8.3.1) forbids an attribute that scanners write anyway: InversionTime without IR."""
    sequences = dataset.get("ScanningSequence") or ""
    inverts = "IR" in ([sequences] if isinstance(sequences, str) else sequences)
    return bool(element.keyword == "InversionTime" and not inverts)


def mark(dataset: Any) -> None:
    """Mark a dataset as de-identified, and remove its dates and times.

    Args:
        dataset: a de-identified image, or a report or figure made from such images; changed in place.
    """
    from pydicom.dataset import Dataset

    for keyword, value in (("ContentDate", _DATE), ("ContentTime", _TIME)):
        if keyword in dataset:
            setattr(dataset, keyword, value)
    _remove_dates(dataset)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = _METHOD
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = [code]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _remove_dates(dataset: Any) -> None:
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                _remove_dates(item)
        elif element.VR in ("DA", "TM", "DT") and element.keyword not in ("ContentDate", "ContentTime", *_EMPTIED):
            del dataset[element.tag]
