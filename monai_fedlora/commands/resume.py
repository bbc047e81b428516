"""``monai-fedlora resume``: write the job that goes on where a run has stopped."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("resume", help="write the job that goes on where a run has stopped")
    parser.add_argument(
        "result", type=Path, help="folder of the run with shared.safetensors, or what NVFlare has downloaded of its job"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="J", help="job folder to create")
    parser.add_argument("--without", metavar="SITES", help="sites that it is not sent to, comma-separated")
    parser.add_argument("--allow-listed", action="store_true", help="no custom folder; sites allow-list the classes")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write it, and say which rounds are left."""
    from monai_fedlora.api.supervised_run import interruption, resume
    from monai_fedlora.commands.console import open_console

    without = args.without.split(",") if args.without else ()
    plan = resume(args.result, output=args.output, without=without, custom_folder=not args.allow_listed)
    why = interruption(args.result)
    console, last = open_console(), plan.start_round + plan.rounds - 1
    if why:
        console.print(f"{plan.experiment} {why}")
    console.print(f"wrote {args.output}: {plan.experiment} goes on, rounds {plan.start_round} to {last}")
    console.print(f"next: monai-fedlora run {args.output} --startup-kit KIT")
    return 0
