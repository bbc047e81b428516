"""Classify or measure one study step by step, and write the files that are offered for download."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
from PIL import Image

from monai_fedlora.clinic import overlay
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_output import write_dicom
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.findings_figure import draw_findings, outline_layer
from monai_fedlora.clinic.measuring import Measurer
from monai_fedlora.clinic.outline_figure import draw_outlines
from monai_fedlora.clinic.outlining import OutlinedHeart, Outliner, outline_study, result_without_class
from monai_fedlora.clinic.prediction import Prediction, explain, predict_loaded
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.clinic.study_findings import Findings
from monai_fedlora.errors import ConfigError, DataError, PrivacyError
from monai_fedlora.files import open_new, write_json
from monai_fedlora.serve.chosen import Unchanged, keep_cine, read_again
from monai_fedlora.serve.served_study import CLASSIFYING, DONE, EXPLAINING, OUTLINING, READING, ServedStudy
from monai_fedlora.serve.viewer_volumes import network_affine, write_cine, write_overlay
from monai_fedlora.studies.study import CINE

LONGEST_SIDE = 2048
"""Largest side in pixels of a photograph on the page (ours)."""
FILES = {
    "volume": "volume.nii.gz",
    "overlay": "overlay.nii.gz",
    "image": "image.png",
    "figure": "figure.png",
    "outlines": "outlines.png",
    "contours": "contours.json",
    "mask": "mask.png",
    "outline": "outline.png",
    "dicom": "dicom.zip",
    "json": "result.json",
}
"""File names by kind of file."""
UNKNOWN_PLACE = "the model cuts out its window in a way of its own, so the overlay cannot be laid on the images"
NO_REPORT = "there is no DICOM report: it holds a class or the outlines of a heart, and this model gives neither"
NO_PLACE = (
    f"hiding no single place changes the answer by {overlay.points(overlay.THRESHOLD)} or more, so there is no overlay"
)


def classify(
    study: ServedStudy,
    classifier: Classifier | Measurer | None,
    *,
    deidentifier: Deidentifier,
    outliner: Outliner | None = None,
) -> None:
    """Take a study from "waiting" to "done".

    The upload is removed as soon as it was read, and the result is available before the occlusion map is computed. If a
    person chose the frames, the kept cine is read in place of the upload.

    Args:
        study: to classify.
        classifier: the model of the class or of the numbers; None for outlines alone.
        deidentifier: of the session.
        outliner: the model of the outlines; None for a class alone.

    Raises:
        ConfigError: a package for this kind of file is not installed.
        DataError: the study cannot be used; the message has the names of the stored files.
        Removed: the study was removed meanwhile.
    """
    study.enter(READING)
    if study.chosen is None or study.cine is None:
        reader = outliner if classifier is None else classifier
        assert reader is not None
        loaded = load_study(study.source, reader, every_source=outliner is not None)
        study.cine = keep_cine(loaded, study.images, deidentifier=deidentifier, share=study.kept)
        study.forget_upload()
    else:
        ed, es = study.chosen
        loaded, deidentifier = read_again(study.cine, study.offered["volume"], ed=ed, es=es), Unchanged()
    notes = []
    prediction = findings = None
    if isinstance(classifier, Measurer):
        study.enter(CLASSIFYING)
        findings = classifier.measure(loaded, name=study.name)
        study.quotes, study.result = findings.quotes, findings.to_json()
    elif classifier is not None:
        study.enter(CLASSIFYING)
        prediction = predict_loaded(classifier, loaded, name=study.name, on_batch=lambda: study.enter(CLASSIFYING))
        study.quotes, study.result = prediction.quotes, prediction.to_json()
    elif outliner is not None:
        study.quotes, study.result = loaded.quotes, result_without_class(outliner, loaded, name=study.name)
    study.enter(EXPLAINING if outliner is None else OUTLINING)
    if "volume" not in study.offered:
        _offer_images(study, loaded)
    if findings is not None:
        _offer_findings(study, findings)
        notes += [NO_REPORT] if loaded.sources else []
    heart = None
    if outliner is not None:
        try:
            heart = outline_study(outliner, loaded, prediction=prediction, on_batch=lambda: study.enter(OUTLINING))
            _offer_outlines(study, heart, loaded)
        except DataError as error:
            if prediction is None:
                raise
            notes.append(f"there are no outlines: {error}")
    result = dict(study.result or {})
    if outliner is not None:
        result["heart"] = None if heart is None else heart.to_json()
    study.result = result
    study.enter(EXPLAINING)
    if study.chosen is not None and study.cine is not None and study.cine.missing:
        notes.append(f"there is no DICOM report: {study.cine.missing}")
    colours = None
    if prediction is not None:
        try:
            prediction = explain(prediction, on_batch=lambda: study.enter(EXPLAINING))
        except ConfigError as error:
            notes.append(f"there is no overlay: {error}")
        study.enter(EXPLAINING)
        notes += _offer_overlay(study, prediction, loaded)
        shown = prediction.relevance
        colours = None if shown is None else overlay.explain_overlay(shown, answer=prediction.predicted)
    if findings is None:
        notes += _offer_reports(study, prediction, heart, loaded, deidentifier)
    study.result = result | {"notes": [*result["notes"], *notes], "overlay": colours}
    write_json(study.results / FILES["json"], study.result)
    study.offer("json", study.results / FILES["json"])
    study.enter(DONE)


def _offer_outlines(study: ServedStudy, heart: OutlinedHeart, loaded: LoadedStudy) -> None:
    """Write the outlines of all frames, which the page draws, and their figure."""
    write_json(study.results / FILES["contours"], heart.measured.contours())
    study.offer("contours", study.results / FILES["contours"])
    with open_new(study.results / FILES["outlines"]) as stream:
        draw_outlines(heart, orientation=loaded.orientation).save(stream, format="PNG")
    study.offer("outlines", study.results / FILES["outlines"])


def _offer_findings(study: ServedStudy, findings: Findings) -> None:
    """Write the figure, and of a photograph the mask and its outlines, which the page lays over the photograph."""
    pictures = {"figure": draw_findings(findings)}
    if findings.mask is not None:
        with Image.open(study.offered["image"]) as shown:
            outlines = outline_layer(findings.mask, findings.names, size=shown.size)
        pictures |= {"mask": Image.fromarray(findings.mask), "outline": outlines}
    for kind, picture in pictures.items():
        with open_new(study.results / FILES[kind]) as stream:
            picture.save(stream, format="PNG")
        study.offer(kind, study.results / FILES[kind])


def _offer_images(study: ServedStudy, loaded: LoadedStudy) -> None:
    if loaded.cine is not None and loaded.cine_affine is not None:
        write_cine(study.results / FILES["volume"], loaded.cine, loaded.cine_affine)
        study.offer("volume", study.results / FILES["volume"])
    else:
        levels = np.rint(255 * loaded.image.permute(1, 2, 0).numpy()).astype(np.uint8)
        photograph = Image.fromarray(levels)
        photograph.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        with open_new(study.results / FILES["image"]) as stream:
            photograph.save(stream, format="PNG")
        study.offer("image", study.results / FILES["image"])


def _offer_overlay(study: ServedStudy, prediction: Prediction, loaded: LoadedStudy) -> list[str]:
    """Write the occlusion map of a cine as a volume; returns notes on why there is none."""
    if prediction.classifier.modality != CINE or loaded.image_affine is None or prediction.relevance is None:
        return []
    if not overlay.is_shown(prediction.relevance):
        return [NO_PLACE]
    affine = network_affine(loaded.image, prediction.prepared, loaded.image_affine)
    if affine is None:
        return [UNKNOWN_PLACE]
    volume = overlay.in_depth(prediction.relevance, prediction.prepared)
    write_overlay(study.results / FILES["overlay"], overlay.colours(volume.numpy()), affine)
    study.offer("overlay", study.results / FILES["overlay"])
    return []


def _offer_reports(
    study: ServedStudy,
    prediction: Prediction | None,
    heart: OutlinedHeart | None,
    loaded: LoadedStudy,
    deidentifier: Deidentifier,
) -> list[str]:
    """Write the figure and, for a DICOM study, an archive of reports, masks, the figure and the images they refer to.

    Returns:
        Notes on why there is no such archive.
    """
    figure = None if prediction is None else draw_figure(prediction)
    if figure is not None:
        with open_new(study.results / FILES["figure"]) as stream:
            figure.save(stream, format="PNG")
        study.offer("figure", study.results / FILES["figure"])
    if not loaded.sources:
        return []
    study.enter(EXPLAINING)
    folder = study.folder / "dicom"
    measured = None if heart is None else heart.measured
    try:
        written = write_dicom(
            prediction,
            figure,
            folder,
            deidentifier=deidentifier,
            measured=measured,
            masked=() if measured is None else loaded.sources_of(measured.ed, measured.es),
        )
    except (ConfigError, DataError, PrivacyError) as error:
        return [f"there is no DICOM report: {error}"]
    with (
        open_new(study.results / FILES["dicom"]) as stream,
        zipfile.ZipFile(stream, "w") as packed,
    ):
        for path in written:
            member = zipfile.ZipInfo(str(path.relative_to(folder)))  # without a time stamp
            packed.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)
    shutil.rmtree(folder)
    study.offer("dicom", study.results / FILES["dicom"])
    return []
