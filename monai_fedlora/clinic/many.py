"""Classify or measure many studies into a folder of results; a study that fails does not stop the others."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.cells import guarded, unguarded
from monai_fedlora.clinic.defects import reason_of
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_output import write_dicom
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.figure_title import add_title
from monai_fedlora.clinic.findings_figure import draw_findings
from monai_fedlora.clinic.measuring import Measurer
from monai_fedlora.clinic.occlusion import need_captum
from monai_fedlora.clinic.outline_figure import draw_outlines
from monai_fedlora.clinic.outlining import OutlinedHeart, Outliner, outline_study, result_without_class
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, Prediction, explain, predict_loaded
from monai_fedlora.clinic.reading import load_study
from monai_fedlora.clinic.state import state_sentences
from monai_fedlora.clinic.study_findings import Finding, Findings
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.files import atomic_path, make_folder, read_json, write_json, write_text
from monai_fedlora.measures.given_numbers import GIVEN_COLUMNS
from monai_fedlora.measures.heart_function import number_cells
from monai_fedlora.studies.study import LeftOut, Study

TABLE_NAME = "predictions.csv"
LEFT_OUT_NAME = "left_out.csv"
FIGURES = "figures"
CONTOURS = "contours"
MASKS = "masks"
NO_DICOM = "no DICOM objects were written: the study was not read from DICOM, so there is no study that they belong to"
_OF_HEART = [*GIVEN_COLUMNS, "outlines_doubts", "class_and_volumes", "outlines_trained_on"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one study.

    Attributes:
        study: its name.
        probabilities: of the classes; empty if it could not be classified.
        predicted: name of the most probable class, or empty.
        answer: the answer as it is displayed, or empty.
        undecided, state, doubts: as of :class:`monai_fedlora.clinic.prediction.Prediction`; the state is empty if it
            could not be classified.
        sentences: the state with its reasons, for display.
        notes: those of the prediction, and which outputs could not be made.
        ranges: lowest and highest probability of each class over small changes of the image; empty if not computed.
        error: what went wrong, or empty. With a prediction: why its figure or DICOM objects were not written.
        numbers: volumes, ejection fractions and mass by name, see
            :data:`monai_fedlora.measures.heart_function.UNITS`; empty if there are none.
        no_volume_because: reasons why a heart that was outlined has no numbers.
        heart: what the outlines say, for display.
        heart_doubts: reasons why the outlines may mean nothing.
        disagreements: where class and numbers do not go together, for display.
        found: what a model that measures has found; empty for other models.
    """

    study: str
    probabilities: tuple[float, ...] = ()
    predicted: str = ""
    answer: str = ""
    undecided: bool = False
    state: str = ""
    doubts: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    error: str = ""
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    no_volume_because: tuple[str, ...] = ()
    heart: tuple[str, ...] = ()
    heart_doubts: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()
    found: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DicomOutput:
    """How DICOM objects are written.

    Attributes:
        deidentifier: replaces identities; None keeps patient, study and UIDs.
    """

    deidentifier: Deidentifier | None


def predict_all(
    classifier: Classifier | Measurer | None,
    studies: Sequence[Study],
    output: Path,
    *,
    outliner: Outliner | None = None,
    overlay: bool = True,
    dicom: DicomOutput | None = None,
    left_out: Sequence[LeftOut] = (),
    on_progress: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Classify studies and write the results.

    ``output`` receives ``studies/<study>.json`` and ``figures/<study>.png`` as soon as a study is done, with ``dicom``
    also ``dicom/<study>/``, and ``predictions.csv`` when all are: ``study``, the probability of each class,
    ``prediction``, ``undecided`` (yes or no), ``state``, ``doubts``, ``notes``, lowest and highest probability of each
    class over small changes, what the model was ``trained_on``, and ``error``. ``left_out.csv`` names the files that
    belong to no study, if there are any. Every file appears complete or not at all, readable by its owner only.

    With an outliner there are ``figures/<study>_outlines.png`` and ``contours/<study>.json`` too, the entry ``heart``
    in the JSON file, and columns of the table for the volumes, why there are none, and where class and volumes
    disagree.

    A model that measures has the columns of its numbers in place of those of a class; one that outlines photographs
    also writes ``masks/<study>.png`` on the pixels of the upright photograph, 0 for the background and 1 to K for the
    structures.

    Args:
        classifier: the model of the class or of the numbers; None for volumes alone, without the columns of a class.
        outliner: the model of the outlines; None for a class alone.
        studies: with different names.
        output: folder to create.
        overlay: also compute an occlusion map, and show it in the figures.
        dicom: also write DICOM objects, for studies that were read from DICOM.
        left_out: files that belong to no study.
        on_progress: called after every study.

    Raises:
        ConfigError: ``output`` exists or cannot be made; or a package for the overlay is not installed.
    """
    if overlay and isinstance(classifier, Classifier):
        need_captum()
    if os.path.lexists(output):
        raise ConfigError(f"{output} exists; choose another output folder, or remove it")
    try:
        make_folder(output.parent)
        output.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(f"{output} cannot be made: {error}") from error
    if left_out:
        rows = [("file", "reason"), *((entry.file, entry.reason) for entry in left_out)]
        write_text(output / LEFT_OUT_NAME, _csv(rows))
    outcomes = []
    for study in studies:
        outcomes.append(_one(classifier, outliner, study, output, overlay=overlay, dicom=dicom))
        on_progress(outcomes[-1])
    text = table(
        None if classifier is None or isinstance(classifier, Measurer) else classifier.classes,
        outcomes,
        columns=classifier.columns if isinstance(classifier, Measurer) else (),
        trained_on="" if classifier is None else classifier.trust.origin.summary,
        outlines_trained_on=None if outliner is None else outliner.trust.origin.summary,
    )
    write_text(output / TABLE_NAME, text)
    return outcomes


def table(
    classes: Sequence[str] | None,
    outcomes: Sequence[Outcome],
    *,
    columns: Sequence[str] = (),
    trained_on: str = "",
    outlines_trained_on: str | None = None,
) -> str:
    """The text of ``predictions.csv``; its last columns say what the models were trained on, and what went wrong.

    Every cell is guarded, see :mod:`monai_fedlora.clinic.cells`.

    Args:
        classes: names; None where nothing was classified.
        outcomes: one for each study.
        columns: of the numbers that a model measured.
        trained_on: of the model of the class or of the numbers.
        outlines_trained_on: of the model of the outlines; None without the columns of volumes.
    """
    spans = [f"{name} {end}" for name in classes or () for end in ("lowest", "highest")]
    answer = [] if classes is None else ["prediction", "undecided"]
    trained = ["trained_on"] if columns or classes is not None else []
    rows = [["study", *(classes or ()), *columns, *answer, "state", "doubts", "notes", *spans, *trained, "error"]]
    if outlines_trained_on is not None:
        rows[0][-1:-1] = _OF_HEART
    for outcome in outcomes:
        heart = [
            *number_cells(outcome.numbers),
            "; ".join(outcome.no_volume_because),
            "; ".join(outcome.heart_doubts),
            "; ".join(outcome.disagreements),
            outlines_trained_on or "",
        ]
        of_heart = [] if outlines_trained_on is None else heart
        shares = [f"{share:.6f}" for share in outcome.probabilities] or [""] * len(classes or ())
        ends = [f"{end:.6f}" for span in outcome.ranges for end in span] or [""] * len(spans)
        undecided = "" if not outcome.probabilities else "yes" if outcome.undecided else "no"
        chosen = [] if classes is None else [outcome.predicted, undecided]
        said = ("; ".join(sentences) for sentences in (outcome.doubts, outcome.notes))
        origin = [trained_on] if trained else []
        measured = {name: text for finding in outcome.found for name, text in finding.cells.items()}
        numbers = [measured.get(name, "") for name in columns]
        cells = [
            outcome.study,
            *shares,
            *numbers,
            *chosen,
            outcome.state,
            *said,
            *ends,
            *origin,
            *of_heart,
            outcome.error,
        ]
        rows.append(cells)
    return _csv(rows)


def file_name(study: str) -> str:
    """A safe file name for the name of a study: the name itself, or a shortened one with a unique hash."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", study)[:80]
    return safe if safe == study else f"{safe}-{hashlib.sha256(study.encode()).hexdigest()[:8]}"


def find_result(output: Path, study: str) -> dict[str, Any]:
    """The content of the JSON file that :func:`predict_all` wrote for a study.

    Args:
        output: folder of the results.
        study: the name, or the guarded form of it in ``predictions.csv``.

    Raises:
        DataError: there is no result of this study, or no such folder.
    """
    places = [output / "studies" / f"{file_name(name)}.json" for name in (study, unguarded(study))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"{output} holds no result of {study!r}; give a folder of predict, and a name of its {TABLE_NAME}"
        )
    result = read_json(path)
    if not isinstance(result, dict):
        raise DataError(f"{path} is no result of predict")
    return result


def _one(
    classifier: Classifier | Measurer | None,
    outliner: Outliner | None,
    study: Study,
    output: Path,
    *,
    overlay: bool,
    dicom: DicomOutput | None,
) -> Outcome:
    name = file_name(study.name)
    outcome = Outcome(study=study.name)
    content: dict[str, Any] = {"notice": NOT_FOR_CLINICAL_USE, "study": study.name}
    try:
        reader = outliner if classifier is None else classifier
        assert reader is not None
        loaded = load_study(study, reader, every_source=dicom is not None and outliner is not None)
        prediction = None
        if isinstance(classifier, Measurer):
            findings = classifier.measure(loaded, name=study.name)
            content = findings.to_json()
            outcome = _of_findings(outcome, findings)
            _write_findings(findings, output, name)
        elif classifier is not None:
            prediction = predict_loaded(classifier, loaded, name=study.name)
            prediction = explain(prediction) if overlay else prediction
            content = prediction.to_json()
            outcome = _of_class(outcome, prediction)
        elif outliner is not None:
            content = result_without_class(outliner, loaded, name=study.name)
            state, doubts = content["state"], tuple(content["doubts"])
            said = state_sentences(doubts, outliner.trust.blind)
            notes = (*loaded.notes, *loaded.quotes)
            outcome = replace(outcome, state=state, doubts=doubts, sentences=said, notes=notes)
        heart = None
        if outliner is not None:
            try:
                heart = outline_study(outliner, loaded, prediction=prediction)
            except DataError as error:  # the class stays
                if prediction is None:
                    raise
                outcome = replace(outcome, error=f"no outlines: {reason_of(error)}")
        if heart is not None:
            content |= {"heart": heart.to_json()}
            outcome = _of_heart(outcome, heart)
            write_json(output / CONTOURS / f"{name}.json", heart.measured.contours())
            picture = draw_outlines(heart, orientation=loaded.orientation)
            with atomic_path(output / FIGURES / f"{name}_outlines.png") as temporary:
                add_title(picture, study.name).save(temporary, format="PNG")
        figure = None if prediction is None else draw_figure(prediction)
        if figure is not None:
            with atomic_path(output / FIGURES / f"{name}.png") as temporary:
                add_title(figure, study.name).save(temporary, format="PNG")
        if dicom is not None and not loaded.sources:
            outcome = replace(outcome, notes=(*outcome.notes, NO_DICOM))
        elif dicom is not None:
            write_dicom(
                prediction,
                figure,
                output / "dicom" / name,
                deidentifier=dicom.deidentifier,
                measured=None if heart is None else heart.measured,
                masked=() if heart is None else loaded.sources_of(heart.measured.ed, heart.measured.es),
                study=study.name,
            )
    except Exception as error:  # a defect must not stop the other studies
        outcome = replace(outcome, error=reason_of(error))
    content |= {"notes": list(outcome.notes), "error": outcome.error or None}
    write_json(output / "studies" / f"{name}.json", content)
    return outcome


def _of_class(outcome: Outcome, prediction: Prediction) -> Outcome:
    return replace(
        outcome,
        probabilities=prediction.probabilities,
        predicted=prediction.predicted,
        answer=prediction.answer,
        undecided=prediction.undecided,
        state=prediction.state,
        doubts=prediction.doubts,
        sentences=state_sentences(prediction.doubts, prediction.classifier.trust.blind),
        notes=(*prediction.notes, *prediction.quotes),
        ranges=prediction.ranges,
    )


def _of_findings(outcome: Outcome, findings: Findings) -> Outcome:
    return replace(
        outcome,
        found=findings.found,
        answer=findings.answer,
        state=findings.state,
        doubts=findings.doubts,
        sentences=state_sentences(findings.doubts, findings.model.trust.blind),
        notes=(*findings.notes, *findings.quotes),
    )


def _write_findings(findings: Findings, output: Path, name: str) -> None:
    """The figure, and the mask where there is one."""
    with atomic_path(output / FIGURES / f"{name}.png") as temporary:
        add_title(draw_findings(findings), findings.study).save(temporary, format="PNG")
    if findings.mask is not None:
        with atomic_path(output / MASKS / f"{name}.png") as temporary:
            Image.fromarray(findings.mask).save(temporary, format="PNG")


def _of_heart(outcome: Outcome, heart: OutlinedHeart) -> Outcome:
    measured = heart.measured
    return replace(
        outcome,
        numbers={} if measured.function is None else measured.function.to_row(),
        no_volume_because=measured.no_volume_because,
        heart=measured.sentences(),
        heart_doubts=heart.doubts,
        disagreements=heart.disagreements,
    )


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([guarded(cell) for cell in row] for row in rows)
    return text.getvalue()
