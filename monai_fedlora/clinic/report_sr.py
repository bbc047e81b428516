"""A prediction as a DICOM Structured Report (TID 1500, Measurement Report)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, Prediction
from monai_fedlora.clinic.sources import Source
from monai_fedlora.clinic.sr_parts import Algorithm, comments, group_images, identification, measurement_report
from monai_fedlora.clinic.state import CANNOT_TELL, DOUBTFUL, NO_DOUBT_FOUND

_STATES = {
    NO_DOUBT_FOUND: ("NODOUBTFOUND", "No doubt found"),
    DOUBTFUL: ("DOUBTFUL", "Doubtful"),
    CANNOT_TELL: ("CANNOTTELL", "Cannot tell whether it is doubtful"),
}
SERIES_NUMBER = 9001
TITLE = "AI classification, research only"


def build_report(prediction: Prediction, sources: Sequence[Source]) -> Any:
    """Make the report of a study.

    It holds an image library with a group for end-diastole and one for end-systole; a group for the answer (TID 1501)
    with the model, the class as an evaluation, the distance from the training cases as measurements, the state with its
    reasons, the notes and the notice that this is not for clinical use; and a group for each class with its
    probability. Its status is preliminary and unverified. Classes, states and the distance, which have no public codes,
    have those of a private scheme.

    Args:
        prediction: of a study that was read from DICOM.
        sources: the classified images; patient and study are copied from the first.

    Returns:
        A ``highdicom.sr.ComprehensiveSR`` in the study of its sources.
    """
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    model = prediction.classifier
    origin = model.trust.origin.summary
    algorithm = Algorithm(name=model.name, version=model.version, sha256=model.sha256, origin=origin)
    made_by = identification(algorithm)
    classes = [algorithm.concept(f"CLASS{index}", name) for index, name in enumerate(model.classes)]
    certainty = sr.QualitativeEvaluation(
        name=algorithm.concept("STATE", "State of the answer"), value=algorithm.concept(*_STATES[prediction.state])
    )
    decided = sr.QualitativeEvaluation(
        name=algorithm.concept("DECISION", "Whether the answer is decided"),
        value=algorithm.concept(*(("UNDECIDED", "Undecided") if prediction.undecided else ("DECIDED", "Decided"))),
    )

    def group(label: str, **content: Any) -> Any:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier=label[:64]),
            algorithm_id=made_by,
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
        measurements=_distances(prediction, algorithm),
        source_images=group_images(sources),
    )
    undecided = (f"The answer is {prediction.answer}.",) if prediction.undecided else ()
    texts = (NOT_FOR_CLINICAL_USE, *undecided, *prediction.sentences(), f"The model was {origin}.")
    answer[0].ContentSequence.extend(comments(texts))
    chances = [
        group(
            f"Probability of {found.meaning}",
            finding_type=found,
            measurements=[sr.Measurement(name=codes.DCM.Probability, value=share, unit=codes.UCUM.NoUnits)],
        )
        for found, share in zip(classes, prediction.probabilities, strict=True)
    ]
    return measurement_report(
        algorithm,
        sources,
        [answer, *chances],
        title=TITLE,
        series_number=SERIES_NUMBER,
        names="Classes of a model exported by MONAI-FedLoRA",
    )


def _distances(prediction: Prediction, algorithm: Algorithm) -> list[Any] | None:
    """The distance from the training cases and its limit, as measurements; None if there is none."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    threshold = prediction.classifier.trust.ood_threshold
    if prediction.distance is None or threshold is None:
        return None
    return [
        sr.Measurement(name=algorithm.concept(code, meaning), value=value, unit=codes.UCUM.NoUnits)
        for code, meaning, value in (
            ("DISTANCE", "Distance from the training cases", prediction.distance),
            ("DISTANCELIMIT", "Limit of the distance from the training cases", threshold.limit),
        )
    ]
