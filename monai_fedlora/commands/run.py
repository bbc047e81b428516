"""``monai-fedlora run``: bring a job of a provisioned federation to its end, whatever fails on the way."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("run", help="run a job in a provisioned federation, and go on when it fails")
    parser.add_argument("job", type=Path, help="job folder")
    parser.add_argument(
        "--startup-kit",
        required=True,
        type=Path,
        metavar="KIT",
        help="folder of somebody who may submit jobs, as NVFlare's provisioning made it",
    )
    parser.add_argument(
        "--workspace", type=Path, metavar="W", help="folder for results (default: JOB-run beside the job)"
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=5,
        metavar="N",
        help="jobs in a row without a new round to give up after (default: 5)",
    )
    parser.add_argument(
        "--exclude-after",
        type=int,
        metavar="N",
        help="leave out a site by which N jobs have failed (default: none is left out)",
    )
    parser.add_argument(
        "--silence",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds without a sign of life until a site counts as gone (default: 60)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=3600.0,
        metavar="S",
        help="seconds without anything new until the job is ended and gone on with (default: 3600)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run, say what happens line by line, and show the results."""
    from monai_fedlora.api.supervised_run import run_supervised
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.commands.simulate import show

    logging.getLogger().addHandler(logging.NullHandler())  # what NVFlare logs about a lost server, it is said here
    console = open_console()
    found = run_supervised(
        args.job,
        startup_kit=args.startup_kit,
        workspace=args.workspace,
        tries=args.tries,
        exclude_after=args.exclude_after,
        silence=args.silence,
        patience=args.patience,
        say=lambda line: console.print(f"{time.strftime('%H:%M:%S')} {line}"),
    )
    return show(found, console)
