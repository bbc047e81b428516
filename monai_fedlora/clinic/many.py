"""Classify many studies into a folder of results; a study that fails does not stop the others."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.cells import guarded, unguarded
from monai_fedlora.clinic.defects import reason_of
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_output import write_dicom
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.figure_title import add_title
from monai_fedlora.clinic.occlusion import need_captum
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, predict_study
from monai_fedlora.clinic.state import state_sentences
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.files import atomic_path, make_folder, read_json, write_json, write_text
from monai_fedlora.studies.study import LeftOut, Study

TABLE_NAME = "predictions.csv"
LEFT_OUT_NAME = "left_out.csv"
FIGURES = "figures"
NO_DICOM = "no DICOM objects were written: the study was not read from DICOM, so there is no study that they belong to"


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


@dataclass(frozen=True, kw_only=True)
class DicomOutput:
    """How DICOM objects are written.

    Attributes:
        deidentifier: replaces identities; None keeps patient, study and UIDs.
    """

    deidentifier: Deidentifier | None


def predict_all(
    classifier: Classifier,
    studies: Sequence[Study],
    output: Path,
    *,
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

    Args:
        classifier: the model.
        studies: with different names.
        output: folder to create.
        overlay: also compute an occlusion map, and show it in the figures.
        dicom: also write DICOM objects, for studies that were read from DICOM.
        left_out: files that belong to no study.
        on_progress: called after every study.

    Raises:
        ConfigError: ``output`` exists or cannot be made; or a package for the overlay is not installed.
    """
    if overlay:
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
        outcomes.append(_one(classifier, study, output, overlay=overlay, dicom=dicom))
        on_progress(outcomes[-1])
    write_text(output / TABLE_NAME, table(classifier.classes, outcomes, trained_on=classifier.trust.origin.summary))
    return outcomes


def table(classes: Sequence[str], outcomes: Sequence[Outcome], *, trained_on: str = "") -> str:
    """The text of ``predictions.csv``; its last columns say what the model was trained on, and what went wrong.

    Every cell is guarded, see :mod:`monai_fedlora.clinic.cells`.
    """
    spans = [f"{name} {end}" for name in classes for end in ("lowest", "highest")]
    rows = [["study", *classes, "prediction", "undecided", "state", "doubts", "notes", *spans, "trained_on", "error"]]
    for outcome in outcomes:
        shares = [f"{share:.6f}" for share in outcome.probabilities] or [""] * len(classes)
        ends = [f"{end:.6f}" for span in outcome.ranges for end in span] or [""] * len(spans)
        undecided = "" if not outcome.probabilities else "yes" if outcome.undecided else "no"
        said = ("; ".join(sentences) for sentences in (outcome.doubts, outcome.notes))
        answer = [*shares, outcome.predicted, undecided, outcome.state, *said, *ends]
        rows.append([outcome.study, *answer, trained_on, outcome.error])
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


def _one(classifier: Classifier, study: Study, output: Path, *, overlay: bool, dicom: DicomOutput | None) -> Outcome:
    name = file_name(study.name)
    outcome = Outcome(study=study.name)
    content: dict[str, Any] = {"notice": NOT_FOR_CLINICAL_USE, "study": study.name}
    try:
        prediction = predict_study(classifier, study, overlay=overlay)
        content = prediction.to_json()
        outcome = replace(
            outcome,
            probabilities=prediction.probabilities,
            predicted=prediction.predicted,
            answer=prediction.answer,
            undecided=prediction.undecided,
            state=prediction.state,
            doubts=prediction.doubts,
            sentences=state_sentences(prediction.doubts, classifier.trust.blind),
            notes=(*prediction.notes, *prediction.quotes),
            ranges=prediction.ranges,
        )
        figure = draw_figure(prediction)
        with atomic_path(output / FIGURES / f"{name}.png") as temporary:
            add_title(figure, study.name).save(temporary, format="PNG")
        if dicom is not None and not prediction.sources:
            outcome = replace(outcome, notes=(*outcome.notes, NO_DICOM))
        elif dicom is not None:
            write_dicom(prediction, figure, output / "dicom" / name, deidentifier=dicom.deidentifier)
    except Exception as error:  # a defect must not stop the other studies
        outcome = replace(outcome, error=reason_of(error))
    content |= {"notes": list(outcome.notes), "error": outcome.error or None}
    write_json(output / "studies" / f"{name}.json", content)
    return outcome


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([guarded(cell) for cell in row] for row in rows)
    return text.getvalue()
