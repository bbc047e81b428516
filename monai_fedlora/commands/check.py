"""``monai-fedlora check``: whether a bundle is what it claims to be, without executing anything of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EXIT = {"passed": 0, "refused": 1, "foreign": 3}
_VERDICTS = {
    "passed": "the bundle passed",
    "refused": "the bundle did not pass; do not load it",
    "foreign": "not made by this toolkit: cannot be judged. Load it only if you trust whoever made it",
}


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
    from monai_fedlora.exporting.check.checker import check_bundle
    from monai_fedlora.exporting.keys import read_public_keys

    report = check_bundle(args.bundle, digest=args.digest, keys=read_public_keys(args.verify), run=args.classify)
    if args.json:
        import json

        print(json.dumps(report.to_json(), indent=1))
    else:
        _print(report)
    return _EXIT[report.verdict]


def _print(report: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from monai_fedlora.commands.console import open_console
    from monai_fedlora.exporting.check.findings import NOT_VERIFIED, RULES, VERIFIED

    console = open_console()
    table = Table(title=f"{escape(report.bundle)}: {report.kind} bundle, {report.files} files")
    for column in ("rule", "what it asks for", "result"):
        table.add_column(column, overflow="fold")
    for rule, text in RULES.items():
        found = sum(finding.rule == rule for finding in report.findings)
        result = "not looked at" if rule not in report.examined else f"{found} wrong" if found else "passed"
        if rule == "signature" and result == "passed":
            result = report.signature
        table.add_row(rule, text, result)
    console.print(table)
    for finding in report.findings:
        line = "".join(letter if letter.isprintable() else "?" for letter in f"{finding.file}: {finding.problem}")
        console.print(escape(line), soft_wrap=True, highlight=False)
    if report.digest:
        console.print(f"digest {report.digest}", soft_wrap=True, highlight=False)
    if report.signature == VERIFIED:
        console.print(f"signed with the key {report.signer}, which --verify names", soft_wrap=True, highlight=False)
    elif report.signature == NOT_VERIFIED and report.passed:
        console.print("signed, signature not verified: give --verify PUBKEY", soft_wrap=True, highlight=False)
    console.print(_VERDICTS[report.verdict], soft_wrap=True, highlight=False)
