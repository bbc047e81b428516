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
        "shadow models, and where it kept its answers, attacks on what the server saw of the site. Beside a run's "
        "model the figures are kept for its report and its export.",
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
        "--leave-out",
        action="store_true",
        help="of a run with all sites' data here: train it anew without each site, to measure whether the shared model "
        "tells who took part",
    )
    parser.add_argument(
        "--invert",
        type=int,
        default=0,
        metavar="N",
        help="of a run: make N images again from steps on one, two and four of them (default: 0, for none)",
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
        help="exit with 1 if the upper 95 %% limit of any attack on the model exceeds this or one could not be "
        "measured, as a gate",
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
    say = open_console().print
    found = audit(
        args.source,
        data=args.data,
        site=args.site,
        outside=args.outside,
        shadows=args.shadows,
        leave_out=args.leave_out,
        invert=args.invert,
        backbone=args.backbone,
        json=args.json,
        say=say,
    )
    say(figures_table(found))
    if found.run is not None and found.run.attacks:
        say(run_table(found))
    for why, untold in found.run_not_measured.items():
        say(f"of the run not measured: {', '.join(untold)}: {why}")
    for why, names in found.not_measured.items():
        say(f"not measured: {', '.join(names)}: {why}")
    for warning in (*found.leakage.warnings, *(() if found.run is None else found.run.warnings)):
        say(f"mind that {warning}", style="yellow")
    say(
        "AUC: how often a member scores above another patient; 0.5 is guessing, 1 certainty. That no attack here finds "
        "more is no proof that none can."
    )
    for path in (found.kept, args.json):
        if path is not None:
            say(f"figures of {found.facts['site']}: {path}")
    if reason := None if args.fail_above is None else found.too_much(args.fail_above):
        say(f"{reason}: do not let this model out", style="red")
        return EXIT_LEAKS
    return 0


def figures_table(found: Any) -> Any:
    """Every attack on the model, the strongest first."""
    numbers = ", ".join(f"{count} {group}" for group, count in found.facts["patients"].items())
    return _table(found.leakage, f"measured leakage of {found.facts['audited']}: patients: {numbers}")


def run_table(found: Any) -> Any:
    """Every attack on what the run has told beside the model, the strongest first."""
    facts = found.facts
    budget = facts["budget"]
    under = f"epsilon {budget['epsilon']:g}, delta {budget['delta']:g}" if budget else "no budget"
    sites = f"{facts['sites']} sites, {facts['rounds']} rounds"
    return _table(found.run, f"measured leakage of the run: {sites}, {facts['wire']}, {under}")


def _table(leakage: Any, title: str) -> Any:
    from monai_fedlora.commands.console import drawn

    rows = [
        (
            each.target,
            each.name,
            ", ".join(each.members),
            each.n_members,
            each.n_others,
            "{:.3f}\n({:.3f}-{:.3f})".format(each.auc, *each.interval_95),
            f"{each.tpr:.3f}",
            f"{each.fpr:.4f}",
        )
        for each in leakage.attacks
    ]
    head = ("attack on", "by", "members", "n", "others", "AUC\n(95 %)", "TPR", "at FPR")
    return drawn(head, rows, title=title, text=3)
