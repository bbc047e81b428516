"""``monai-fedlora policy``: a site's own limits, as a ``policy.json`` that no job can change."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from monai_fedlora.federated.site_policy import Policy

_MEANINGS = {
    "least_cases": "patients behind a message, as the loss weighs them",
    "least_steps": "optimiser steps between two messages",
    "most_rounds": "rounds of an experiment, repeated and resumed ones included",
    "methods": "that may train",
    "bundles": "that may be used",
    "plugins": "packages whose code a job may name",
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
        "--require-approval",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="train nothing but what `monai-fedlora approve` has approved (default: no)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the file, and show the limits."""
    import os

    from monai_fedlora.catalogues import canonical, plugins
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.errors import ConfigError, nearest
    from monai_fedlora.federated.site_policy import FILE_NAME, Policy, site_policy
    from monai_fedlora.methods import method_names

    given = {name: value for name in _MEANINGS if (value := getattr(args, name)) is not None}
    for name in {"methods", "bundles", "plugins"} & given.keys():
        given[name] = [word for word in given[name].split(",") if word]
    for method in given.get("methods", ()):
        if method not in method_names():
            raise ConfigError(f"--methods: no method is called {method!r}{nearest(method, method_names())}")
    known = {canonical(plugin.distribution): plugin.distribution for plugin in plugins()}
    for package in given.get("plugins", ()):
        if canonical(package) not in known:
            near = nearest(package, sorted(known.values()) or ["none"])
            raise ConfigError(f"--plugins: no package called {package!r} is installed here that has plug-ins{near}")
    console = open_console()
    if args.output is None:
        if given:
            raise ConfigError("give --output DIR, the site's local/ folder, to write these limits")
        policy = site_policy()
    else:
        path = args.output / FILE_NAME
        before = Policy.load(path) if os.path.lexists(path) else Policy()
        policy = Policy.from_json({**before.to_json(), **given}, source=str(path))
        policy.save(path)
    console.print(limits_table(policy))
    return 0


def limits_table(policy: Policy) -> Table:
    """The limits of a policy, and the jobs it has approved."""
    from rich.table import Table

    table = Table(title=policy.source, box=None, title_justify="left", padding=(0, 2, 0, 0))
    for column in ("limit", "", ""):
        table.add_column(column, overflow="fold")
    for name, meaning in _MEANINGS.items():
        value = getattr(policy, name)
        shown = "all" if value is None else ", ".join(value) or "none" if isinstance(value, tuple) else str(value)
        table.add_row(name, shown, meaning)
    for approval in policy.approved:
        table.add_row("approved", approval.experiment, f"{approval.date}  {approval.sha256}")
    return table
