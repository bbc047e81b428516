"""``monai-fedlora export``: turn a finished run into a model that others can use."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("export", help="make a bundle or PEFT folders from a finished run")
    parser.add_argument(
        "--run",
        dest="source",  # args.run is the command itself
        required=True,
        type=Path,
        metavar="W",
        help="a run's workspace, or a site's private folder",
    )
    parser.add_argument(
        "--site", required=True, help="whose personal model; 'shared' for the shared part alone, for a new hospital"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="B", help="folder to create")
    parser.add_argument(
        "--backbone", metavar="FILE", help="backbone file (default: MONAI_FEDLORA_BACKBONE, then the demo weights)"
    )
    parser.add_argument(
        "--format",
        choices=("bundle", "peft"),
        default="bundle",
        help="a MONAI bundle that runs with MONAI alone (default), or the adapters as PEFT folders",
    )
    parser.add_argument("--zip", action="store_true", help="write one zip file that holds the bundle's folder")
    parser.add_argument(
        "--onnx", action="store_true", help="add models/model.onnx, the network behind the preprocessing (extra 'onnx')"
    )
    parser.add_argument(
        "--no-pt2", action="store_true", help="leave models/model.pt2 out, which holds the weights once more"
    )
    parser.add_argument(
        "--no-statistics",
        action="store_true",
        help="leave the site's noisy mean and threshold out, which tell unusual images",
    )
    parser.add_argument(
        "--public-data",
        type=Path,
        metavar="D",
        help="prepared sites whose cases are public: unusual images are told better with them than with "
        "phantoms alone, and by a shared model with them alone",
    )
    parser.add_argument(
        "--sign", type=Path, metavar="KEY", help="sign the bundle with an elliptic-curve private key in a PEM file"
    )
    parser.add_argument(
        "--sign-passphrase-file",
        type=Path,
        metavar="FILE",
        help="file whose first line is the passphrase of an encrypted key (default: MONAI_FEDLORA_SIGN_PASSPHRASE)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written, how good it is and how to run it."""
    from rich.markup import escape

    from monai_fedlora.commands.console import open_console

    exported = _export(args)
    console = open_console()
    console.print(f"wrote {escape(str(exported.folder))}", soft_wrap=True, highlight=False)
    for name, size in _sizes(exported.folder).items():
        console.print(f"  {escape(name):40} {size:>13,} bytes", highlight=False)
    if exported.metadata["eval_metrics"]["test"]:
        console.print(metrics_table(exported.metadata))
    else:
        console.print("no test metrics were recorded for this model")
    for line in advice(exported.metadata, run=args.source, output=args.output):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if args.format == "bundle":
        console.print(leakage_line(exported.metadata["measured_leakage"]), soft_wrap=True, highlight=False)
        if not exported.metadata["out_of_distribution"]["available"]:
            reason = exported.metadata["out_of_distribution"]["reason"]
            console.print(f"it does not tell unusual images: {escape(reason)}", soft_wrap=True, highlight=False)
    if exported.digest:
        console.print("its digest, to pass on by another way than the bundle, for monai-fedlora check --digest:")
        console.print(f"  {exported.digest}", soft_wrap=True, highlight=False)
    if args.sign:
        console.print("it is signed; whoever has the public key verifies it with monai-fedlora check --verify PUBKEY")
    console.print("to use it (for research only, not for clinical use):\n")
    console.print(escape(exported.usage), soft_wrap=True, highlight=False)
    return 0


def _export(args: argparse.Namespace) -> Any:
    from monai_fedlora.api.model_export import export
    from monai_fedlora.commands.progress import counting_bar

    with counting_bar("public images") as bar:
        return export(
            args.source,
            site=args.site,
            output=args.output,
            backbone=args.backbone,
            format=args.format,
            packed=args.zip,
            onnx=args.onnx,
            program=not args.no_pt2,
            statistics=not args.no_statistics,
            public=args.public_data,
            sign=args.sign,
            passphrase_file=args.sign_passphrase_file,
            warn=lambda text: print(f"warning: {text}", file=sys.stderr),
            on_public=bar,
        )


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file of a folder or zip, by name."""
    import zipfile

    if folder.is_file():
        with zipfile.ZipFile(folder) as archive:
            return {member.filename: member.file_size for member in archive.infolist()}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


def advice(metadata: Mapping[str, Any], *, run: Path, output: Path) -> list[str]:
    """What the model was trained on, and whether the shared one does better, with the command that exports that."""
    import shlex

    from monai_fedlora.clinic.trust import read_trust
    from monai_fedlora.errors import ExportError
    from monai_fedlora.exporting.finished import SHARED_SITE
    from monai_fedlora.exporting.locate import find_shared
    from monai_fedlora.exporting.personal_or_shared import KEY
    from monai_fedlora.site_report import SHARED

    origin = read_trust(metadata).origin
    lines = [f"{origin.summary}{''.join(f'; {doubt}' for doubt in origin.doubts())}"]
    entry = metadata.get(KEY)
    if entry is None:
        return lines
    lines.append(entry["said"])
    if entry["better"] == SHARED:
        try:
            find_shared(run)
        except ExportError:
            lines.append("the shared one is at the federation's server; export it there with --site shared")
        else:
            where = output.with_name(f"{output.stem}-shared")
            command = ["monai-fedlora", "export", "--run", str(run), "--site", SHARED_SITE, "--output", str(where)]
            lines.append(f"to export the shared one instead: {shlex.join(command)}")
    return lines


def leakage_line(entry: Mapping[str, Any]) -> str:
    """What the strongest attack that needs no training tells of the members."""
    if not entry["measured"]:
        return f"measured leakage: none was measured: {entry['reason']}"
    first = entry["attacks"][0]
    low, high = first["interval_95"]
    return (
        f"measured leakage: {first['name']} on the {first['target']} tells members from others with an AUC of "
        f"{first['auc']:.2f} ({low:.2f} to {high:.2f}; 0.5 is guessing), {first['n_members']} against "
        f"{first['n_others']} patients; the card has all attacks that were tried"
    )


def metrics_table(metadata: Mapping[str, Any]) -> Any:
    """The test metrics with their intervals, one column per view of the model."""
    from rich.table import Table

    from monai_fedlora.exporting.model_card import VIEW_NAMES, format_metric
    from monai_fedlora.exporting.model_metadata import headline

    views = headline(metadata)
    cases = next(iter(metadata["eval_metrics"]["test"].values())).get("n", "?")
    table = Table(title=f"test split, {cases} cases (95 % intervals)")
    table.add_column("metric")
    for view in views:
        table.add_column(VIEW_NAMES[view], justify="right")
    for name in dict.fromkeys(name for metrics in views.values() for name in metrics):
        table.add_row(name.replace("_", " "), *(format_metric(metrics.get(name)) for metrics in views.values()))
    return table
