"""``monai-fedlora forget``: what runs have left in a site's private folder, and a way to be rid of it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("forget", help="show or remove what runs have left in a site's private folder")
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="to remove (default: show all)")
    parser.add_argument("--site", help="of this site alone (default: of all)")
    parser.add_argument(
        "--private", type=Path, metavar="DIR", help="the private folder (default: MONAI_FEDLORA_PRIVATE_DIR)"
    )
    parser.add_argument(
        "--models", action="store_true", help="remove personal models too (default: they stay, for an export)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Show what there is, or remove the named experiments."""
    from datetime import datetime

    from monai_fedlora.commands.console import drawn, open_console
    from monai_fedlora.federated.kept_runs import forget, kept_runs, nbytes, private_folder

    root, console = private_folder(args.private), open_console()
    for experiment in args.experiments:
        gone = forget(root, experiment, site=args.site, models=args.models)
        console.print(f"removed {len(gone)} files of {experiment}")
    found = kept_runs(root, site=args.site)
    rows = [
        (
            kept.experiment,
            kept.site,
            f"{nbytes(kept.states) / 1e6:,.1f} MB",
            f"{nbytes(kept.models) / 1e6:,.1f} MB" if kept.models else "none",
            f"{datetime.fromtimestamp(kept.changed):%Y-%m-%d}",
        )
        for kept in found
    ]
    console.print(f"{root}: {len(found)} runs")
    if rows:
        console.print(drawn(("experiment", "site", "states of rounds", "personal model", "last change"), rows))
    return 0
