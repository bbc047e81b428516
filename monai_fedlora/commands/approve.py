"""``monai-fedlora approve``: what a job would train and send, on one screen, and a site's consent to exactly that."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("approve", help="show what a job would train and send, and approve it for a site")
    parser.add_argument("job", type=Path, help="job folder, as it came")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the site's local/ folder, to approve the job there; else it is shown",
    )
    parser.add_argument("--withdraw", action="store_true", help="with --output: take the approval back")
    return parser


def run(args: argparse.Namespace) -> int:
    """Show the job, and write the approval where it was asked for."""
    from monai_fedlora.commands.console import open_console, pairs
    from monai_fedlora.federated.consent import decide

    console = open_console()
    found = decide(args.job, args.output, withdrawn=args.withdraw)
    if found.lines:
        console.print(pairs(found.lines, title=f"{found.experiment}: a job for this site"))
    console.print(found.result)
    return 0
