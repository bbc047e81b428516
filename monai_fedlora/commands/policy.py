"""``monai-fedlora policy``: a site's own limits, as a ``policy.json`` that no job can change."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_MEANINGS = {
    "least_cases": "patients behind a message, as the loss weighs them",
    "least_steps": "optimiser steps between two messages",
    "most_rounds": "rounds of an experiment, repeated and resumed ones included",
    "methods": "that may train",
    "bundles": "that may be used",
    "plugins": "packages whose code a job may name",
    "budget": "what all experiments together may tell of one patient",
    "require_approval": "whether nothing trains but the jobs below",
}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("policy", help="show or write a site's own limits on what jobs may ask for")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="the site's local/ folder; the limits given here change in its file"
    )
    parser.add_argument("--least-cases", type=int, metavar="N", help=f"{_MEANINGS['least_cases']} (default: 16)")
    parser.add_argument("--least-steps", type=int, metavar="N", help=f"{_MEANINGS['least_steps']} (default: 4)")
    parser.add_argument("--most-rounds", type=int, metavar="N", help=f"{_MEANINGS['most_rounds']} (default: 100)")
    parser.add_argument("--methods", metavar="NAME,...", help=f"{_MEANINGS['methods']} (default: all)")
    parser.add_argument("--bundles", metavar="NAME,...", help=f"{_MEANINGS['bundles']} (default: all installed)")
    parser.add_argument(
        "--plugins", metavar="NAME,...", help=f"{_MEANINGS['plugins']}, as pip lists them (default: none)"
    )
    parser.add_argument(
        "--budget",
        metavar="EPSILON,DELTA",
        help=f"{_MEANINGS['budget']}, such as 8,1e-5, by differential privacy; jobs that keep no account of it are "
        "then refused; none takes it away (default: none), see monai-fedlora privacy",
    )
    parser.add_argument(
        "--require-approval",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="train nothing but what `monai-fedlora approve` has approved (default: no)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the file, and show the limits."""
    from monai_fedlora.commands.console import open_console, pairs
    from monai_fedlora.commands.options import parse_budget
    from monai_fedlora.federated.policy_change import change_policy

    given = {name: value for name in _MEANINGS if (value := getattr(args, name)) is not None}
    for name in {"methods", "bundles", "plugins"} & given.keys():
        given[name] = [word for word in given[name].split(",") if word]
    if "budget" in given:
        given["budget"] = parse_budget(given["budget"])
    made = args.output is not None and not args.output.exists()
    policy, console = change_policy(args.output, **given), open_console()
    rows = [(name, _shown(name, getattr(policy, name)), meaning) for name, meaning in _MEANINGS.items()]
    rows += [("approved", each.experiment, f"{each.date}  {each.sha256}") for each in policy.approved]
    console.print(pairs(rows, title=policy.source))
    if made:
        console.print(f"{args.output} is new: a site reads its own local/, or what MONAI_FEDLORA_POLICY names")
    return 0


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none" if name == "budget" else "all"
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)
