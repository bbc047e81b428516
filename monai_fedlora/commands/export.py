"""``monai-fedlora export``: turn a finished run into a model that others can use."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


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
    from monai_fedlora.api.model_export import export
    from monai_fedlora.commands.console import drawn_table, open_console
    from monai_fedlora.commands.progress import counting_bars

    console = open_console()
    with counting_bars("public images") as (bar,):
        exported = export(
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
    console.print(f"wrote {exported.folder}")
    for name, size in exported.files.items():
        console.print(f"  {name:40} {size:>13,} bytes")
    table = exported.table()
    console.print(drawn_table(table) if table.rows else "no test metrics were recorded for this model")
    for line in exported.notes:
        console.print(line)
    if exported.digest:
        console.print("its digest, to pass on by another way than the bundle, for monai-fedlora check --digest:")
        console.print(f"  {exported.digest}")
    if args.sign:
        console.print("it is signed; whoever has the public key verifies it with monai-fedlora check --verify PUBKEY")
    console.print("to use it (for research only, not for clinical use):\n")
    console.print(exported.usage)
    return 0
