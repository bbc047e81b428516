"""A prediction as a DICOM Structured Report (TID 1500, Measurement Report)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, Prediction
from monai_fedlora.clinic.sources import Source
from monai_fedlora.clinic.state import CANNOT_TELL, DOUBTFUL, NO_DOUBT_FOUND

MANUFACTURER = "MONAI-FedLoRA"
CLASS_SCHEME = "99MONAIFEDLORA"
"""Private coding scheme of the classes and of the distance from the training cases, which have no public codes. The
scheme's version is the beginning of the model's SHA-256."""

_STATES = {
    NO_DOUBT_FOUND: ("NODOUBTFOUND", "No doubt found"),
    DOUBTFUL: ("DOUBTFUL", "Doubtful"),
    CANNOT_TELL: ("CANNOTTELL", "Cannot tell whether it is doubtful"),
}
SERIES_NUMBER = 9001
TITLE = "AI classification, research only"


def build_report(prediction: Prediction, sources: Sequence[Source]) -> Any:
    """Make the report of a study.

    It holds an image library with a group for end-diastole and one for end-systole (TID 1600, cardiac cycle phase); a
    group for the answer (TID 1501) with the model, the class as an evaluation, the distance from the training cases as
    measurements, the state with its reasons, the notes and the notice that this is not for clinical use; and a group
    for each class with its probability. Its status is preliminary and unverified.

    Args:
        prediction: of a study that was read from DICOM.
        sources: the classified images; patient and study are copied from the first.

    Returns:
        A ``highdicom.sr.ComprehensiveSR`` in the study of its sources.
    """
    import highdicom as hd
    from highdicom import sr
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes

    model = prediction.classifier
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{int(model.sha256[:32], 16)}",
            manufacturer_name=MANUFACTURER,
            model_name=model.name[:64],
        ),
    )
    algorithm = sr.AlgorithmIdentification(
        name=model.name[:64],
        version=model.version,
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
        parameters=[
            f"SHA-256 of model.ts: {model.sha256}",
            f"monai-fedlora {__version__}",
            model.trust.origin.summary,
        ],
    )

    def concept(code: str, meaning: str) -> Any:
        return sr.CodedConcept(code, CLASS_SCHEME, meaning[:64], scheme_version=model.sha256[:16])

    classes = [concept(f"CLASS{index}", name) for index, name in enumerate(model.classes)]
    certainty = sr.QualitativeEvaluation(
        name=concept("STATE", "State of the answer"), value=concept(*_STATES[prediction.state])
    )
    decided = sr.QualitativeEvaluation(
        name=concept("DECISION", "Whether the answer is decided"),
        value=concept("UNDECIDED", "Undecided") if prediction.undecided else concept("DECIDED", "Decided"),
    )

    def group(label: str, **content: Any) -> Any:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier=label[:64]),
            algorithm_id=algorithm,
            finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Heart)],
            **content,
        )

    answer = group(
        TITLE,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(name=codes.SCT.Classification, value=classes[prediction.best]),
            certainty,
            decided,
        ],
        measurements=_distances(prediction),
        source_images=[
            sr.SourceImageForMeasurementGroup(
                source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, list(source.frames) or None
            )
            for source in sources
        ],
    )
    undecided = (f"The answer is {prediction.answer}.",) if prediction.undecided else ()
    origin = f"The model was {model.trust.origin.summary}."
    for text in (NOT_FOR_CLINICAL_USE, *undecided, *prediction.sentences(), origin):
        answer[0].ContentSequence.append(
            sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    chances = [
        group(
            f"Probability of {found.meaning}",
            finding_type=found,
            measurements=[sr.Measurement(name=codes.DCM.Probability, value=share, unit=codes.UCUM.NoUnits)],
        )
        for found, share in zip(classes, prediction.probabilities, strict=True)
    ]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.SCT.CardiacMRI,
        imaging_measurements=[answer, *chances],
    )[0]
    content.ContentSequence.insert(-1, _library(sources))  # the template wants it before the measurements
    report: Any = sr.ComprehensiveSR(
        evidence=[source.dataset for source in sources],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        series_description=TITLE,
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeVersion = CLASS_SCHEME, model.sha256[:16]
    scheme.CodingSchemeName = "Classes of a model exported by MONAI-FedLoRA"
    report.CodingSchemeIdentificationSequence = [scheme]
    return report


def _distances(prediction: Prediction) -> list[Any] | None:
    """The distance from the training cases and its limit, as measurements; None if there is none."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    model = prediction.classifier
    if prediction.distance is None or model.trust.ood_threshold is None:
        return None
    return [
        sr.Measurement(
            name=sr.CodedConcept(code, CLASS_SCHEME, meaning, scheme_version=model.sha256[:16]),
            value=value,
            unit=codes.UCUM.NoUnits,
        )
        for code, meaning, value in (
            ("DISTANCE", "Distance from the training cases", prediction.distance),
            ("DISTANCELIMIT", "Limit of the distance from the training cases", model.trust.ood_threshold.limit),
        )
    ]


def _library(sources: Sequence[Source]) -> Any:
    """An image library with a group of images for ED and one for ES."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    contains, context = sr.RelationshipTypeValues.CONTAINS, sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    library = sr.ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = sr.ContentSequence()
    for name, phase in (("ed", codes.SCT.EndDiastole), ("es", codes.SCT.EndSystole)):
        group = sr.ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=contains)
        group.ContentSequence = sr.ContentSequence(
            [sr.CodeContentItem(name=codes.SCT.CardiacCyclePhase, value=phase, relationship_type=context)]
        )
        for source in sources:
            if images := getattr(source, name):
                group.ContentSequence.append(
                    sr.ImageContentItem(
                        name=codes.SCT.Source,
                        referenced_sop_class_uid=source.dataset.SOPClassUID,
                        referenced_sop_instance_uid=source.dataset.SOPInstanceUID,
                        referenced_frame_numbers=list(source.referred(images)) or None,
                        relationship_type=contains,
                    )
                )
        library.ContentSequence.append(group)
    return library
