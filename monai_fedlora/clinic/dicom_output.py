"""Write a prediction as DICOM: a structured report and the figure, as objects of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from monai_fedlora.clinic.deidentify import Deidentifier, mark
from monai_fedlora.clinic.mask_seg import build_segmentations
from monai_fedlora.clinic.measured_sr import build_measures
from monai_fedlora.clinic.measured_study import MeasuredStudy
from monai_fedlora.clinic.prediction import Prediction
from monai_fedlora.clinic.report_sr import build_report
from monai_fedlora.clinic.secondary_capture import build_capture
from monai_fedlora.clinic.sources import Source
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.files import atomic_path
from monai_fedlora.formats.dicom_files import naming_damage, need_pydicom, quiet_pydicom

REPORT_NAME, FIGURE_NAME, IMAGES_NAME = "report.dcm", "figure.dcm", "images"
MASK_NAMES, MEASURES_NAME = {"ED": "mask_ed.dcm", "ES": "mask_es.dcm"}, "measures.dcm"
_COPIED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def write_dicom(
    prediction: Prediction | None,
    figure: Image.Image | None,
    folder: Path,
    *,
    deidentifier: Deidentifier | None,
    measured: MeasuredStudy | None = None,
    masked: Sequence[Source] = (),
    study: str = "",
) -> list[Path]:
    """Write ``report.dcm`` and ``figure.dcm``; if de-identified, also copies of the images that they refer to.

    With masks there are ``mask_ed.dcm`` and ``mask_es.dcm`` too, without one whose mask is empty, and ``measures.dcm``.

    Args:
        prediction: of a study that was read from DICOM; None for masks and measures alone.
        figure: the prediction's figure; None without a prediction.
        folder: receives the files.
        measured: masks of two frames of the study, and what was measured in them.
        masked: the DICOM objects with the images of these two frames; empty for those of the prediction.
        study: its name, for messages.
        deidentifier: None keeps patient, study and UIDs, for the archive that the study comes from. Otherwise all of
            these are replaced, and the folder ``images`` holds de-identified copies of the images of both frames, so
            that the references of the report can be resolved.

    Raises:
        ConfigError: highdicom is not installed.
        DataError: the study was not read from DICOM, or its header cannot be carried over.
        PrivacyError: they should be de-identified, and text is burned into the images, or they are enhanced ones.
    """
    need_pydicom()
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise ConfigError("DICOM needs further packages: pip install 'monai-fedlora[dicom]'") from error
    study = study or ("the study" if prediction is None else prediction.study)
    classified = () if prediction is None else prediction.sources
    masked = masked or classified
    if not (masked if prediction is None else classified):
        raise DataError(f"{study} was not read from DICOM; a report has no study to belong to")
    with naming_damage(f"the DICOM header of {study} cannot be carried over to a report", "export the study again"):
        carry = _carried if deidentifier is None else deidentifier.image
        carried = {str(source.dataset.SOPInstanceUID): source.dataset for source in (*classified, *masked)}
        carried = {uid: carry(dataset) for uid, dataset in carried.items()}
        objects: dict[str, Any] = {}
        if prediction is not None and figure is not None:
            images = _with(classified, carried)
            objects |= {REPORT_NAME: build_report(prediction, images), FIGURE_NAME: build_capture(figure, images)}
        if measured is not None:
            images = _with(masked, carried)
            masks = build_segmentations(measured, images)
            objects |= {MASK_NAMES[phase]: mask for phase, mask in masks.items()}
            objects[MEASURES_NAME] = build_measures(measured, images, masks)
    with quiet_pydicom():
        if deidentifier is not None:
            for made in objects.values():
                mark(made)
            objects |= {f"{IMAGES_NAME}/{number:04d}.dcm": image for number, image in enumerate(carried.values(), 1)}
        for name, dataset in objects.items():
            with atomic_path(folder / name) as temporary:
                dataset.save_as(temporary, enforce_file_format=True)
        return [folder / name for name in objects]


def _with(sources: Sequence[Source], carried: Mapping[str, Any]) -> list[Source]:
    """The sources with their objects as they are carried over, by the UIDs that these had before."""
    return [replace(source, dataset=carried[str(source.dataset.SOPInstanceUID)]) for source in sources]


def _carried(source: Any) -> Any:
    """A copy of an image; attributes that a report copies are empty where they are missing or invalid.

    The copy shares all other elements with the image, which stays as it was read.
    """
    from pydicom.dataset import Dataset

    copy = Dataset()
    copy.update(source)
    copy.file_meta = source.file_meta
    for keyword in _COPIED:
        value = copy.get(keyword)
        if value is None or not _is_sound(keyword, value):
            if keyword in copy:
                del copy[keyword]  # else the value of the element that both share would change
            setattr(copy, keyword, "")
    return copy


def _is_sound(keyword: str, value: Any) -> bool:
    from pydicom.valuerep import DA, TM

    kinds = {"StudyDate": DA, "PatientBirthDate": DA, "StudyTime": TM}
    try:
        return keyword not in kinds or not value or kinds[keyword](value) is not None
    except ValueError:
        return False
