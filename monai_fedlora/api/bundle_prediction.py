"""Studies, classified or measured with an exported bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.clinic import many
from monai_fedlora.clinic import two_models as pair
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.measuring import Measurer
from monai_fedlora.clinic.state import NO_DOUBT_FOUND, percent, span, state_sentences
from monai_fedlora.clinic.threads import torch_threads
from monai_fedlora.clinic.trust import Trust
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.keys import read_public_keys
from monai_fedlora.measures.heart_function import UNITS
from monai_fedlora.rendering.tables import Table
from monai_fedlora.studies.finding import BESIDE, count_and_name, find_studies
from monai_fedlora.studies.naming import printable
from monai_fedlora.studies.study import LeftOut, Study

__all__ = ["Predicted", "predict"]

StrPath = str | os.PathLike[str]
_SHOWN = ("lv_ef", "lv_edv", "lv_esv", "lv_mass", "rv_ef", "rv_edv", "rv_esv")


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Answers, with the reasons to doubt them. Research only: not a medical device, not for clinical use.

    Attributes:
        output: folder of the results: ``predictions.csv``, a JSON file and a figure for each study.
        classes: names in the order of the probabilities.
        outcomes: one for each study: ``study``, ``probabilities``, ``predicted``, ``undecided``, ``state``, ``doubts``,
            ``notes`` and ``error``; with outlines also ``numbers``, ``no_volume_because`` and ``disagreements``.
        left_out: files that belong to no study, and why.
        trust: how far the bundle's answers can be trusted; without a class, the outlines.
        outlined: whether hearts were outlined.
        measured: names of the numbers of a model that measures: values, or structures with their share of the picture.
    """

    output: Path
    classes: Sequence[str]
    outcomes: Sequence[many.Outcome]
    left_out: Sequence[LeftOut]
    trust: Trust
    outlined: bool = False
    measured: Sequence[str] = ()

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
            said += outcome.disagreements
            said += (f"no volume is given: {reason}" for reason in outcome.no_volume_because)
            if outcome.probabilities:
                said += (f"the outlines are doubtful because {doubt}" for doubt in outcome.heart_doubts)
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
        usually = {finding.name: finding.usually for outcome in self.outcomes for finding in outcome.found}
        lines += [f"{name}: {said}" for name, said in usually.items()]
        return lines + [f"of the model: {note}" for note in self.trust.notes if self.figures]

    def table(self) -> Table:
        """The answers, in as many digits as calibrated probabilities have, with their ranges."""
        rows = []
        for outcome in self.outcomes:
            shares = [percent(share, calibrated=self.trust.calibrated) for share in outcome.probabilities]
            for place, (low, high) in enumerate(outcome.ranges):
                shares[place] += f" ({span(low, high, calibrated=self.trust.calibrated)})"
            predicted = "undecided" if outcome.undecided else outcome.predicted or "failed"
            cells = [predicted, *(shares or [""] * len(self.classes))] if self.classes else []
            found = {finding.name: finding.shown for finding in outcome.found}
            numbers = [found.get(name, "") for name in self.measured]
            numbers += [_number(outcome, name) for name in _SHOWN] if self.outlined else []
            rows.append([outcome.study, *cells, *numbers, outcome.state.replace("_", " ")])
        of_class = ["prediction", *self.classes] if self.classes else []
        of_heart = [f"{name.replace('_', ' ').upper()} ({UNITS[name]})" for name in _SHOWN] if self.outlined else []
        return Table(caption="", head=["study", *of_class, *self.measured, *of_heart, "state"], rows=rows)


def _number(outcome: many.Outcome, name: str) -> str:
    value = outcome.numbers.get(name)
    return "" if value is None else f"{value:.0f}"


def predict(
    bundle: StrPath,
    inputs: StrPath | Sequence[StrPath],
    *,
    output: StrPath,
    outlines: StrPath | None = None,
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
        bundle: its folder. One that outlines hearts gives volumes and no class; one of a regression its numbers with
            their usual errors; one that outlines photographs masks and the share of the picture that each structure
            takes.
        inputs: one or several: for a cine model NIfTI files or folders and zip archives with DICOM studies; for a
            photograph model JPEG, PNG or TIFF files; or folders, zip archives or a csv of such.
        output: folder to create.
        outlines: folder of a second bundle, which outlines the heart of cines: gives volumes, ejection fractions and
            mass beside the class, and says where both disagree.
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
        ConfigError: there is no such bundle, its signature is not one of ``keys``, ``output`` exists, or an option does
            not go with what the bundle answers.
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
    with pair.opened_models(
        Path(bundle), outlines=None if outlines is None else Path(outlines), files=files, keys=signers
    ) as (classifier, outliner):
        reader = outliner if classifier is None else classifier
        assert reader is not None
        if dicom and isinstance(classifier, Measurer):
            raise ConfigError(
                f"--dicom writes reports of a class or of a heart's outlines, and {bundle} gives neither; leave it out"
            )
        found = find_studies([Path(each) for each in one_or_more(inputs)], modality=reader.modality, on_file=on_file)
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
            outliner=outliner,
            overlay=overlay,
            dicom=many.DicomOutput(deidentifier=None if keep_identity else Deidentifier()) if dicom else None,
            left_out=found.left_out,
            on_progress=count,
        )
    return Predicted(
        output=Path(output),
        classes=() if classifier is None or isinstance(classifier, Measurer) else classifier.classes,
        outcomes=outcomes,
        left_out=found.left_out,
        trust=reader.trust,
        outlined=outliner is not None,
        measured=classifier.names if isinstance(classifier, Measurer) else (),
    )


def _called(name: str, studies: Sequence[Study]) -> Study:
    """The one study under another name."""
    chosen = printable(" ".join(name.split()))
    if not chosen:
        raise ConfigError("--pseudonym is empty; give a name")
    if len(studies) != 1:
        raise ConfigError(f"--pseudonym names one study, and {len(studies)} are given")
    return replace(studies[0], name=chosen, is_pseudonym=True)
