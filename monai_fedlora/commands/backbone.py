"""``monai-fedlora backbone``: what a file of weights is, and how it would be used."""

from __future__ import annotations

import argparse
import json


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("backbone", help="say what a file of weights is, before any job names it")
    parser.add_argument("weights", metavar="FILE", help="a file, a folder, or hf://owner/repo")
    parser.add_argument("--json", action="store_true", help="print the description as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print what it is.

    Returns:
        0 if a job can name it, 1 if no size of the catalogue fits.
    """
    from monai_fedlora.api.backbone_description import describe_backbone
    from monai_fedlora.commands.console import open_console

    found = describe_backbone(args.weights)
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        console = open_console()
        for line in found.notes:
            console.print(line)
    return 0 if found.usable else 1
