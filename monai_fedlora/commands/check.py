"""``monai-fedlora check``: whether a bundle is what it claims to be, without executing anything of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_EXIT = {"passed": 0, "refused": 1, "foreign": 3}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("check", help="check a bundle's files statically, before anybody loads it")
    parser.add_argument("bundle", type=Path, help="a bundle's folder, or a zip of it")
    parser.add_argument(
        "--digest", metavar="SHA256", help="what the export printed; a bundle that was rewritten as a whole has another"
    )
    parser.add_argument(
        "--verify",
        action="append",
        default=[],
        type=Path,
        metavar="PUBKEY",
        help="the bundle must be signed with this public key (PEM), or with another one if it is given several times",
    )
    parser.add_argument(
        "--run",
        dest="classify",
        action="store_true",
        help="let a model that passes classify noise, with limits on time and memory",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Check, and print the report.

    Returns:
        0 if nothing is wrong, 1 if something is, 3 if the bundle was not made by this package.
    """
    from monai_fedlora.api.bundle_check import check
    from monai_fedlora.commands.console import drawn_table, open_console

    found = check(args.bundle, digest=args.digest, keys=args.verify, run=args.classify)
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        console = open_console()
        console.print(drawn_table(found.table()))
        for line in (*found.problems, *found.notes):
            console.print(line)
    return _EXIT[found.verdict]
