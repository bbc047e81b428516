"""Studies, classified with an exported bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.clinic import bundle as bundles
from monai_fedlora.clinic import helper, many
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.state import NO_DOUBT_FOUND, percent, span, state_sentences
from monai_fedlora.clinic.threads import torch_threads
from monai_fedlora.clinic.trust import Trust
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.keys import read_public_keys
from monai_fedlora.rendering.tables import Table
from monai_fedlora.studies.finding import BESIDE, count_and_name, find_studies
from monai_fedlora.studies.naming import printable
from monai_fedlora.studies.study import LeftOut, Study

__all__ = ["Predicted", "predict"]

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Answers, with the reasons to doubt them. Research only: not a medical device, not for clinical use.

    Attributes:
        output: folder of the results: ``predictions.csv``, a JSON file and a figure for each study.
        classes: names in the order of the probabilities.
        outcomes: one for each study: ``study``, ``probabilities``, ``predicted``, ``undecided``, ``state``, ``doubts``,
            ``notes`` and ``error``.
        left_out: files that belong to no study, and why.
        trust: how far the bundle's answers can be trusted.
    """

    output: Path
    classes: Sequence[str]
    outcomes: Sequence[many.Outcome]
    left_out: Sequence[LeftOut]
    trust: Trust

    @property
    def path(self) -> Path:
        """The table of all answers."""
        return self.output / many.TABLE_NAME

    @property
    def figures(self) -> Path | None:
        """The folder of the figures, to look at first; None where no study could be classified."""
        return self.output / many.FIGURES if any(outcome.state for outcome in self.outcomes) else None

    @property
    def errors(self) -> dict[str, str]:
        """By study, why it or its figure could not be made."""
        return {outcome.study: outcome.error for outcome in self.outcomes if outcome.error}

    @property
    def of_all(self) -> list[str]:
        """Why every answer of this model is doubtful."""
        return list(self.trust.origin.doubts())

    @property
    def doubts(self) -> list[str]:
        """What is undecided, doubtful or left out, a line each; what holds of every answer is left to `of_all`."""
        lines = []
        for outcome in self.outcomes:
            said = [outcome.answer] if outcome.undecided else []
            own = [doubt for doubt in outcome.doubts if doubt not in self.of_all]
            if self.of_all and outcome.doubts:
                said += state_sentences(own, ()) if own else ()
            elif outcome.state != NO_DOUBT_FOUND:
                said += outcome.sentences
            lines += [f"{outcome.study}: {text}" for text in said]
        if self.left_out:
            lines.append(f"left out, see {many.LEFT_OUT_NAME}: {count_and_name(self.left_out)}")
        return lines

    @property
    def notes(self) -> list[str]:
        """What else a reader of the answers should know, a line each."""
        lines = [] if self.of_all else [f"the model was {self.trust.origin.summary}"]
        for outcome in self.outcomes:
            own = [note for note in outcome.notes if note not in self.trust.notes and not note.startswith(BESIDE)]
            lines += [f"{outcome.study}: note: {note}" for note in own]
        return lines + [f"of the model: {note}" for note in self.trust.notes if self.figures]

    def table(self) -> Table:
        """The answers, in as many digits as calibrated probabilities have, with their ranges."""
        rows = []
        for outcome in self.outcomes:
            shares = [percent(share, calibrated=self.trust.calibrated) for share in outcome.probabilities]
            for place, (low, high) in enumerate(outcome.ranges):
                shares[place] += f" ({span(low, high, calibrated=self.trust.calibrated)})"
            predicted = "undecided" if outcome.undecided else outcome.predicted or "failed"
            cells = shares or [""] * len(self.classes)
            rows.append([outcome.study, predicted, *cells, outcome.state.replace("_", " ")])
        return Table(caption="", head=["study", "prediction", *self.classes, "state"], rows=rows)


def predict(
    bundle: StrPath,
    inputs: StrPath | Sequence[StrPath],
    *,
    output: StrPath,
    overlay: bool = True,
    dicom: bool = False,
    keep_identity: bool = False,
    pseudonym: str | None = None,
    keys: StrPath | Sequence[StrPath] = (),
    on_file: Callable[[int], None] = lambda files: None,
    on_study: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:
    """Classify studies with a bundle that an export made. Research only: not a medical device, not for clinical use.

    The model runs in a process of its own, so that a study which ends it costs none of the others. A study that cannot
    be classified has an ``error`` in its outcome.

    Args:
        bundle: its folder.
        inputs: one or several: for a cine model NIfTI files or folders and zip archives with DICOM studies; for a
            photograph model JPEG, PNG or TIFF files; or folders, zip archives or a csv of such.
        output: folder to create.
        overlay: look for the places that an answer hangs on, which takes most of the time.
        dicom: for DICOM studies, also write a structured report and the figure as DICOM, de-identified.
        keep_identity: keep patient, study and UIDs in these, for the archive that the study comes from.
        pseudonym: what results call the one study that is given; None for its file's name.
        keys: files of public keys (PEM), one of which the bundle must be signed with; none asks for no signature.
        on_file: called with the number of files looked at.
        on_study: called with the number of studies done, and of all.

    Returns:
        The answers; ``print(predicted.table())`` shows them.

    Raises:
        ConfigError: there is no such bundle, its signature is not one of ``keys``, or ``output`` exists.
        DataError: an input does not exist, or is no study.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.predict("no_such_bundle", ["study.nii.gz"], output="predictions")
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.ConfigError: ...no_such_bundle is no exported bundle...
    """
    if keep_identity and not dicom:
        raise ConfigError("--keep-identity says what is in the DICOM objects; give --dicom too")
    files = [Path(key) for key in one_or_more(keys)]
    signers = read_public_keys(files)
    torch_threads()
    with helper.Helper(Path(bundle), keys=files) as process:
        process.start()  # it loads while this process does
        classifier = helper.isolated(bundles.open_bundle(Path(bundle), keys=signers, device="cpu"), process)
        found = find_studies(
            [Path(each) for each in one_or_more(inputs)], modality=classifier.modality, on_file=on_file
        )
        studies = found.studies if pseudonym is None else [_called(pseudonym, found.studies)]
        done: list[many.Outcome] = []

        def count(outcome: many.Outcome) -> None:
            done.append(outcome)
            on_study(len(done), len(studies))

        on_study(0, len(studies))
        outcomes = many.predict_all(
            classifier,
            studies,
            Path(output),
            overlay=overlay,
            dicom=many.DicomOutput(deidentifier=None if keep_identity else Deidentifier()) if dicom else None,
            left_out=found.left_out,
            on_progress=count,
        )
    return Predicted(
        output=Path(output),
        classes=classifier.classes,
        outcomes=outcomes,
        left_out=found.left_out,
        trust=classifier.trust,
    )


def _called(name: str, studies: Sequence[Study]) -> Study:
    """The one study under another name."""
    chosen = printable(" ".join(name.split()))
    if not chosen:
        raise ConfigError("--pseudonym is empty; give a name")
    if len(studies) != 1:
        raise ConfigError(f"--pseudonym names one study, and {len(studies)} are given")
    return replace(studies[0], name=chosen, is_pseudonym=True)
