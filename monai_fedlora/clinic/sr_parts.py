"""What all DICOM objects of a prediction share: who made them, with which model, and from which images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.clinic.sources import Source

MANUFACTURER = "MONAI-FedLoRA"
PRIVATE_SCHEME = "99MONAIFEDLORA"
"""Private coding scheme of what has no public code. The scheme's version is the beginning of the model's SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """The model that made an object.

    Attributes:
        name, version: from its metadata.
        sha256: of ``models/model.ts``.
        origin: what it was trained on, a line without a full stop.
    """

    name: str
    version: str
    sha256: str
    origin: str

    @property
    def parameters(self) -> list[str]:
        """What identifies the model besides its name and version."""
        return [f"SHA-256 of model.ts: {self.sha256}", f"monai-fedlora {__version__}", self.origin]

    @property
    def device_uid(self) -> str:
        """UID of the model as an observer; the same model has the same."""
        return f"2.25.{int(self.sha256[:32], 16)}"

    def concept(self, code: str, meaning: str) -> Any:
        """A code of the private scheme."""
        from highdicom import sr

        return sr.CodedConcept(code, PRIVATE_SCHEME, meaning[:64], scheme_version=self.sha256[:16])


def observer(algorithm: Algorithm) -> Any:
    """The model as the device that observed (TID 1004)."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=algorithm.device_uid, manufacturer_name=MANUFACTURER, model_name=algorithm.name[:64]
        ),
    )
    return sr.ObservationContext(observer_device_context=device)


def identification(algorithm: Algorithm) -> Any:
    """The model as the algorithm of measurements (TID 4019)."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return sr.AlgorithmIdentification(
        name=algorithm.name[:64],
        version=algorithm.version,
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
        parameters=algorithm.parameters,
    )


def image_library(sources: Sequence[Source]) -> Any:
    """An image library with a group of images for ED and one for ES (TID 1600, cardiac cycle phase)."""
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


def measurement_report(
    algorithm: Algorithm,
    sources: Sequence[Source],
    groups: Sequence[Any],
    *,
    title: str,
    series_number: int,
    evidence: Sequence[Any] = (),
    names: str | None = None,
) -> Any:
    """A report of groups of measurements (TID 1500), preliminary and unverified, in the study of its sources.

    Args:
        algorithm: the model.
        sources: the images; patient and study are copied from the first.
        groups: measurement groups (TID 1501).
        title: of the series.
        series_number: of the series.
        evidence: further objects of the study that the groups refer to.
        names: what the codes of the private scheme mean; None if there are none.

    Returns:
        A ``highdicom.sr.ComprehensiveSR``.
    """
    import highdicom as hd
    from highdicom import sr
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes

    content = sr.MeasurementReport(
        observation_context=observer(algorithm),
        procedure_reported=codes.SCT.CardiacMRI,
        imaging_measurements=groups,
    )[0]
    content.ContentSequence.insert(-1, image_library(sources))  # the template wants it before the measurements
    report: Any = sr.ComprehensiveSR(
        evidence=[*(source.dataset for source in sources), *evidence],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=series_number,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        series_description=title,
    )
    if names is not None:
        scheme = Dataset()
        scheme.CodingSchemeDesignator, scheme.CodingSchemeVersion = PRIVATE_SCHEME, algorithm.sha256[:16]
        scheme.CodingSchemeName = names
        report.CodingSchemeIdentificationSequence = [scheme]
    return report


def comments(texts: Sequence[str]) -> list[Any]:
    """Sentences as content items of a group."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return [
        sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        for text in texts
    ]


def group_images(sources: Sequence[Source]) -> list[Any]:
    """The images that a group of measurements was made from."""
    from highdicom import sr

    return [
        sr.SourceImageForMeasurementGroup(
            source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, list(source.frames) or None
        )
        for source in sources
    ]
