"""``monai-fedlora predict``: classify studies with an exported bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_fedlora.commands.options import add_signature_option
from monai_fedlora.errors import ConfigError

EXIT_FAILED_STUDIES = 1


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "predict",
        help="classify a patient's images with an exported bundle",
        description="Classify studies with a bundle that monai-fedlora export made, and write predictions.csv, and for "
        "each study a JSON file and a figure. Research only: not a medical device, not for clinical use.",
        epilog="INPUT of a cine model: NIfTI files <study>_ed.nii.gz with <study>_es.nii.gz, a 4D NIfTI file, a folder "
        "or zip archive with a DICOM study; of a photograph model: JPEG, PNG or TIFF files; or a folder or zip archive "
        "of such files, of many patients too; "
        "or a csv with a column study and, per line, ed and es, or cine or folder (of a DICOM study) with or without "
        "ed_frame and es_frame, or image.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of an exported bundle")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="what to classify, see below")
    parser.add_argument("--output", required=True, type=Path, metavar="O", help="folder to create")
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="for DICOM studies, also write a structured report and the figure as DICOM, de-identified",
    )
    parser.add_argument(
        "--keep-identity",
        action="store_true",
        help="with --dicom: keep patient, study and UIDs, for the archive that the study comes from",
    )
    parser.add_argument(
        "--no-overlay", action="store_true", help="do not look for the places that an answer hangs on (much faster)"
    )
    parser.add_argument(
        "--pseudonym",
        metavar="NAME",
        help="what results and figure call the one study that is given, instead of its file's name, which reasons of "
        "failure still say; for many, name them in the column study of a csv",
    )
    add_signature_option(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Classify, and say what was found.

    Returns:
        0, or 1 if a study failed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from monai_fedlora.clinic.bundle import open_bundle
    from monai_fedlora.clinic.deidentify import Deidentifier
    from monai_fedlora.clinic.helper import Helper, isolated
    from monai_fedlora.clinic.many import FIGURES, LEFT_OUT_NAME, TABLE_NAME, DicomOutput, predict_all
    from monai_fedlora.clinic.state import NO_DOUBT_FOUND, state_sentences
    from monai_fedlora.clinic.threads import torch_threads
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.exporting.keys import read_public_keys
    from monai_fedlora.studies.finding import BESIDE, count_and_name, find_studies

    if args.keep_identity and not args.dicom:
        raise ConfigError("--keep-identity says what is in the DICOM objects; give --dicom too")
    keys = read_public_keys(args.require_signature)
    torch_threads()
    console = open_console()
    columns: Sequence[Any] = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Helper(args.bundle, keys=args.require_signature) as helper:
        helper.start()  # it loads while this process does
        classifier = isolated(open_bundle(args.bundle, keys=keys), helper)
        with console.status("looking for studies") as status:
            found = find_studies(
                args.inputs,
                modality=classifier.modality,
                on_file=lambda count: status.update(f"looking for studies: {count} files"),
            )
        studies = found.studies if args.pseudonym is None else _called(args.pseudonym, found.studies)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("studies", total=len(studies))
            outcomes = predict_all(
                classifier,
                studies,
                args.output,
                overlay=not args.no_overlay,
                dicom=DicomOutput(deidentifier=None if args.keep_identity else Deidentifier()) if args.dicom else None,
                left_out=found.left_out,
                on_progress=lambda outcome: bar.advance(task),
            )
    console.print(summary(classifier.classes, outcomes, calibrated=classifier.trust.calibrated))
    origin = classifier.trust.origin
    of_all = origin.doubts()  # said once, and not again of each study
    for doubt in of_all:
        console.print(f"every answer is doubtful because {doubt}", style="red", markup=False, soft_wrap=True)
    if not of_all:
        console.print(f"the model was {origin.summary}", markup=False, soft_wrap=True)
    for outcome in outcomes:
        if outcome.error:
            console.print(f"{outcome.study}: {outcome.error}", style="red", markup=False, soft_wrap=True)
        if outcome.undecided:
            console.print(f"{outcome.study}: {outcome.answer}", style="yellow", markup=False, soft_wrap=True)
        stated = outcome.sentences if outcome.state != NO_DOUBT_FOUND else ()
        if outcome.doubts and of_all:
            own = [doubt for doubt in outcome.doubts if doubt not in of_all]
            stated = state_sentences(own, ()) if own else ()
        for sentence in stated:
            console.print(f"{outcome.study}: {sentence}", style="yellow", markup=False, soft_wrap=True)
        for note in outcome.notes:
            if note not in classifier.trust.notes and not note.startswith(BESIDE):
                console.print(f"{outcome.study}: note: {note}", markup=False, soft_wrap=True)
    if any(outcome.state for outcome in outcomes):
        for note in classifier.trust.notes:
            console.print(f"of the model: {note}", markup=False, soft_wrap=True)
    if found.left_out:
        text = f"left out, see {LEFT_OUT_NAME}: {count_and_name(found.left_out)}"
        console.print(text, style="yellow", markup=False, soft_wrap=True)
    if any(outcome.state for outcome in outcomes):
        console.print(f"figures, to look at first: {args.output / FIGURES}", markup=False, soft_wrap=True)
    console.print(f"results: {args.output / TABLE_NAME}", markup=False, soft_wrap=True)
    console.print("Research only. Not for clinical use.", style="red")
    return EXIT_FAILED_STUDIES if any(outcome.error for outcome in outcomes) else 0


def _called(name: str, studies: Sequence[Any]) -> list[Any]:
    """The one study under another name.

    Raises:
        ConfigError: there are several, or the name is none.
    """
    from monai_fedlora.studies.naming import printable

    chosen = printable(" ".join(name.split()))
    if not chosen or len(studies) != 1:
        raise ConfigError(
            f"--pseudonym names one study, and {len(studies)} are given"
            if chosen
            else "--pseudonym is empty; give a name"
        )
    return [replace(studies[0], name=chosen, is_pseudonym=True)]


def summary(classes: Sequence[str], outcomes: Sequence[Any], *, calibrated: bool) -> Any:
    """A table of the predictions, in as many digits as ``calibrated`` probabilities have, with their ranges."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from monai_fedlora.clinic.state import percent, span

    result = Table(box=box.SIMPLE)
    result.add_column("study")
    result.add_column("prediction")
    for name in classes:
        result.add_column(escape(name), justify="right")
    result.add_column("state")
    for outcome in outcomes:
        shares = [percent(share, calibrated=calibrated) for share in outcome.probabilities] or [""] * len(classes)
        ranges = [span(low, high, calibrated=calibrated) for low, high in outcome.ranges]
        if ranges:
            shares = [f"{share} ({ends})" for share, ends in zip(shares, ranges, strict=True)]
        predicted = "undecided" if outcome.undecided else outcome.predicted
        state = outcome.state.replace("_", " ")
        result.add_row(escape(outcome.study), escape(predicted) or "failed", *shares, state)
    return result
