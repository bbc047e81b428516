"""Volumes, ejection fraction and mass of a study as a DICOM Structured Report (TID 1500, Measurement Report)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai_fedlora.clinic.measured_study import MeasuredStudy
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE
from monai_fedlora.clinic.sources import Source
from monai_fedlora.clinic.sr_parts import Algorithm, comments, group_images, identification, measurement_report
from monai_fedlora.measures.heart_function import UNITS
from monai_fedlora.measures.heart_numbers import DENSITY

SERIES_NUMBER = 9005
TITLE = "AI volumes, research only"

CODES = {
    "lv_edv": ("LN", "LeftVentricularEDVolume"),
    "lv_esv": ("LN", "LeftVentricularESVolume"),
    "lv_sv": ("SCT", "StrokeVolume"),
    "lv_ef": ("LN", "LeftVentricularEjectionFractionByMR"),
    "lv_mass": ("LN", "LeftVentricleMass"),
    "rv_edv": ("LN", "RightVentricularEDVolume"),
    "rv_esv": ("LN", "RightVentricularESVolume"),
    "rv_sv": ("SCT", "RightVentricularStrokeVolume"),
    "rv_ef": ("LN", "RightVentricularEjectionFractionByMR"),
}
"""By number: coding scheme (LOINC or SNOMED CT) and pydicom's keyword of its code."""

_SITES = {"lv": ("LeftVentricle", "Left ventricle"), "rv": ("RightVentricle", "Right ventricle")}
_UCUM = {"mL": "mL", "%": "percent", "g": "gram"}
_PHASES = {"edv": "ED", "esv": "ES", "mass": "ED"}


def build_measures(measured: MeasuredStudy, sources: Sequence[Source], segmentations: Mapping[str, Any]) -> Any:
    """Make the report of what was measured.

    It holds an image library with a group for end-diastole and one for end-systole, and a group of measurements (TID
    1501) for each ventricle with its finding site, the model, and the notice that this is not for clinical use. Volumes
    and mass refer to the segmentation that they were measured in. If the stack does not cover the left ventricle, one
    group of the heart says why there are no measurements. Its status is preliminary and unverified.

    Args:
        measured: the numbers, or why there are none.
        sources: the images; patient and study are copied from the first.
        segmentations: by phase, from :func:`monai_fedlora.clinic.mask_seg.build_segmentations`.

    Returns:
        A ``highdicom.sr.ComprehensiveSR`` in the study of its sources.
    """
    algorithm = measured.algorithm
    if measured.function is None:
        groups = [_refusal(measured, sources, algorithm)]
    else:
        groups = list(_ventricles(measured.function.to_row(), sources, segmentations, algorithm))
    density = f"The mass is the volume of the muscle at end-diastole times {DENSITY} g/mL."
    mass = () if measured.function is None or measured.function.lv_mass is None else (density,)
    texts = (NOT_FOR_CLINICAL_USE, *measured.sentences(), *mass, f"The model was {algorithm.origin}.")
    groups[0][0].ContentSequence.extend(comments(texts))
    return measurement_report(
        algorithm,
        sources,
        groups,
        title=TITLE,
        series_number=SERIES_NUMBER,
        evidence=[] if measured.function is None else list(segmentations.values()),
        names="States of an answer of MONAI-FedLoRA" if measured.function is None else None,
    )


def _ventricles(
    numbers: Mapping[str, float | None],
    sources: Sequence[Source],
    segmentations: Mapping[str, Any],
    algorithm: Algorithm,
) -> Iterator[Any]:
    """A group for each ventricle that has numbers."""
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    for side, (site, label) in _SITES.items():
        own = {name: value for name, value in numbers.items() if name.startswith(side) and value is not None}
        if own:
            yield sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier=f"{label}, {TITLE}"),
                algorithm_id=identification(algorithm),
                finding_sites=[sr.FindingSite(anatomic_location=getattr(codes.SCT, site))],
                measurements=[_measurement(name, value, segmentations) for name, value in own.items()],
                source_images=group_images(sources),
            )


def _measurement(name: str, value: float, segmentations: Mapping[str, Any]) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    scheme, keyword = CODES[name]
    unit = UNITS[name]
    phase = _PHASES.get(name.partition("_")[2])
    measured_in = segmentations.get(phase) if phase else None
    return sr.Measurement(
        name=getattr(getattr(codes, scheme), keyword),
        value=round(value, 2),
        unit=sr.CodedConcept(unit, "UCUM", _UCUM[unit]),
        referenced_images=None
        if measured_in is None
        else [sr.SourceImageForMeasurement(measured_in.SOPClassUID, measured_in.SOPInstanceUID)],
    )


def _refusal(measured: MeasuredStudy, sources: Sequence[Source], algorithm: Algorithm) -> Any:
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier=TITLE),
        algorithm_id=identification(algorithm),
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Heart)],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                name=algorithm.concept("VOLUMES", "Whether volumes are given"),
                value=algorithm.concept("NOVOLUME", "No volume"),
            )
        ],
        source_images=group_images(sources),
    )
