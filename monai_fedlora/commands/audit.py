"""``monai-fedlora audit``: membership inference against an own model, before it is let out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXIT_LEAKS = 1


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "audit",
        help="measure what an own model tells of who was behind it",
        description="Run membership inference against an own bundle or finished run with the data that it was made "
        "from: loss, confidence, entropy, distance, tracing of every shipped statistic; for a run also LiRA with "
        "shadow models. Beside a run's model the figures are kept for its report and its export.",
    )
    parser.add_argument(
        "source", type=Path, metavar="BUNDLE|RUN", help="an exported bundle, or a run's workspace or private folder"
    )
    parser.add_argument("--data", metavar="PREPARED", help="folder of prepared sites (default: generated phantoms)")
    parser.add_argument("--site", metavar="S", help="whose model; of a shared bundle, whose cases")
    parser.add_argument(
        "--outside",
        metavar="PREPARED",
        help="prepared folder with other cases of the same kind; 'phantom' for more phantoms of the site",
    )
    parser.add_argument(
        "--shadows", type=int, metavar="N", help="shadow runs of LiRA (default: 8 for a run; 0 for none)"
    )
    parser.add_argument(
        "--backbone",
        metavar="FILE",
        help="backbone file of a run (default: MONAI_FEDLORA_BACKBONE, then the demo weights)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument(
        "--fail-above",
        type=float,
        metavar="AUC",
        help="exit with 1 if the upper 95 %% limit of any attack exceeds this or one could not be measured, as a gate",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Attack, and say how well it went.

    Returns:
        0, or with ``--fail-above`` 1 if an attack exceeds it or could not be measured.
    """
    from monai_fedlora.api.leakage_audit import audit
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.errors import ConfigError

    if args.fail_above is not None and not 0.5 <= args.fail_above <= 1:
        raise ConfigError(f"--fail-above is {args.fail_above:g}; an AUC that tells something lies between 0.5 and 1")
    console = open_console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    found = audit(
        args.source,
        data=args.data,
        site=args.site,
        outside=args.outside,
        shadows=args.shadows,
        backbone=args.backbone,
        json=args.json,
        say=say,
    )
    console.print(figures_table(found))
    for why, names in found.not_measured.items():
        say(f"not measured: {', '.join(names)}: {why}")
    for warning in found.leakage.warnings:
        console.print(f"mind that {warning}", style="yellow", markup=False, soft_wrap=True)
    say(
        "AUC: how often a member scores above another patient; 0.5 is guessing, 1 certainty. That no attack here finds "
        "more is no proof that none can."
    )
    for path in (found.kept, args.json):
        if path is not None:
            say(f"figures of {found.facts['site']}: {path}")
    if reason := None if args.fail_above is None else found.too_much(args.fail_above):
        console.print(f"{reason}: do not let this model out", style="red", markup=False, soft_wrap=True)
        return EXIT_LEAKS
    return 0


def figures_table(found: Any) -> Any:
    """Every attack, the strongest first."""
    from rich import box
    from rich.table import Table

    numbers = ", ".join(f"{count} {group}" for group, count in found.facts["patients"].items())
    table = Table(title=f"measured leakage of {found.facts['audited']}: patients: {numbers}", box=box.SIMPLE)
    for column in ("attack on", "by", "members"):
        table.add_column(column, overflow="fold")
    for column in ("n", "others", "AUC\n(95 %)", "TPR", "at FPR"):
        table.add_column(column, justify="right", no_wrap=True)
    for attack in found.leakage.attacks:
        low, high = attack.interval_95
        table.add_row(
            attack.target,
            attack.name,
            ", ".join(attack.members),
            str(attack.n_members),
            str(attack.n_others),
            f"{attack.auc:.3f}\n({low:.3f}-{high:.3f})",
            f"{attack.tpr:.3f}",
            f"{attack.fpr:.4f}",
        )
    return table
