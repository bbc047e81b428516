"""``monai-fedlora predict``: classify or measure studies with an exported bundle, outline hearts with another."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_fedlora.commands.options import add_signature_option

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
    parser.add_argument(
        "bundle",
        type=Path,
        metavar="BUNDLE",
        help="folder of an exported bundle; one that outlines hearts gives volumes and no class, one of a regression "
        "numbers, one that outlines photographs masks and areas",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="what to classify, see below")
    parser.add_argument("--output", required=True, type=Path, metavar="O", help="folder to create")
    parser.add_argument(
        "--outlines",
        type=Path,
        metavar="BUNDLE",
        help="folder of a second bundle, which outlines the heart of cines: volumes, ejection fraction and mass beside "
        "the class, and a remark where both disagree",
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="for DICOM studies, also write a structured report and the figure as DICOM, de-identified; with outlines "
        "masks (SEG) and measures too",
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
    from monai_fedlora.api.bundle_prediction import predict
    from monai_fedlora.commands.console import drawn_table, open_console
    from monai_fedlora.commands.progress import counting_bars

    console = open_console()
    with counting_bars("files looked at", "studies") as (files, studies):
        found = predict(
            args.bundle,
            args.inputs,
            output=args.output,
            outlines=args.outlines,
            overlay=not args.no_overlay,
            dicom=args.dicom,
            keep_identity=args.keep_identity,
            pseudonym=args.pseudonym,
            keys=args.require_signature,
            on_file=lambda count: files(count, None),
            on_study=studies,
        )
    console.print(drawn_table(found.table()))
    for doubt in found.of_all:
        console.print(f"every answer is doubtful because {doubt}", style="red")
    for study, error in found.errors.items():
        console.print(f"{study}: {error}", style="red")
    for text in found.doubts:
        console.print(text, style="yellow")
    for note in found.notes:
        console.print(note)
    if found.figures:
        console.print(f"figures, to look at first: {found.figures}")
    console.print(f"results: {found.path}")
    console.print("Research only. Not for clinical use.", style="red")
    return EXIT_FAILED_STUDIES if found.errors else 0
