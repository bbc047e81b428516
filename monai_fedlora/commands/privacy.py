"""``monai-fedlora privacy``: what leaves a site, as a gate that no job can remove, and what a budget of it means."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "privacy", help="write a site's privacy.json from a job you have approved, or say what a privacy budget means"
    )
    parser.add_argument("job", nargs="?", type=Path, help="job folder whose manifest the site approves")
    parser.add_argument("--output", type=Path, metavar="DIR", help="with a job: the site's local/ folder")
    parser.add_argument(
        "--budget",
        metavar="EPSILON,DELTA",
        help="calculate what training under this budget would be, such as 8,1e-5, before joining anything",
    )
    parser.add_argument("--patients", type=int, metavar="N", help="with --budget: who train at the site")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="with --budget: patients in a step (default: 16)"
    )
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="with --budget: rounds (default: 10)")
    parser.add_argument(
        "--epochs", type=int, default=1, metavar="N", help="with --budget: local epochs of a round (default: 1)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="S",
        help="with --budget: noise multiplier (default: the least with which all rounds fit)",
    )
    parser.add_argument(
        "--spare-rounds",
        type=int,
        default=0,
        metavar="N",
        help="with --budget: rounds that may be trained again within it, as a job's --dp-spare-rounds (default: 0)",
    )
    parser.add_argument(
        "--private",
        type=Path,
        metavar="DIR",
        help="with --budget: the site's private folder, to say what its ledger has spent and to begin there",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the gate, or show the calculation."""
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.errors import ConfigError

    if args.budget is not None:
        if args.job is not None or args.output is not None:
            raise ConfigError("--budget only calculates; leave the job and --output out, or --budget")
        return _calculate(args, open_console())
    if args.job is None or args.output is None:
        raise ConfigError("give a job and --output DIR, the site's local/ folder, or --budget EPSILON,DELTA")
    return _write_gate(args, open_console())


def _write_gate(args: argparse.Namespace, console: Any) -> int:
    from monai_fedlora.federated.approval import Job, write_gate

    job = Job.read(args.job)
    path = write_gate(job, args.output)
    manifest = job.manifest
    up, down = manifest.up.nbytes, manifest.down.nbytes
    console.print(f"{path} lets exactly {len(manifest.entries)} tensors through ({up:,} bytes up, {down:,} down):")
    for key, entry in manifest.entries.items():
        console.print(f"  {key}  {entry}")
    return 0


def _calculate(args: argparse.Namespace, console: Any) -> int:
    from monai_fedlora.commands.console import drawn, pairs
    from monai_fedlora.commands.options import parse_budget
    from monai_fedlora.errors import ConfigError
    from monai_fedlora.privacy.forecast import as_budget, forecast, read_spent

    budget = as_budget(parse_budget(args.budget))
    spent = read_spent(args.private, delta=budget.delta) if args.private else []
    if args.private:
        rows = [
            (each.pool, each.codes, each.answers, f"{each.epsilon:.3g}", ", ".join(each.experiments)) for each in spent
        ]
        head = ("patients", "codes", "answers", "epsilon", "experiments")
        console.print(drawn(head, rows, title=f"spent, at delta {budget.delta:g}") if rows else "nothing is spent")
    if args.patients is None:
        if args.private:
            return 0
        raise ConfigError("--budget needs --patients N, how many train at the site, or --private DIR for what is spent")
    found = forecast(
        budget=budget,
        patients=args.patients,
        batch_size=args.batch_size,
        epochs=args.epochs,
        rounds=args.rounds,
        noise=args.noise,
        spare_rounds=args.spare_rounds,
        spent=spent[0].mechanisms if spent else (),
    )
    a_round = found.a_round
    least = ", the least for this" if found.least else ""
    spared = [(f"and {args.spare_rounds} again", f"{found.spare:.3g} of {budget.epsilon:g}")] if found.spare else []
    lines = [
        ("a round", f"{a_round.steps} steps, in each of which a patient is with probability {a_round.sample_rate:.3g}"),
        ("noise", f"{a_round.noise_multiplier:g} times the longest gradient of one patient{least}"),
        *((f"epsilon after {count}", f"{epsilon:.3g} of {budget.epsilon:g}") for count, epsilon in found.after),
        *spared,
        ("further rounds", f"{max(found.further, 0)} with the same noise"),
        (
            "what it means",
            f"whoever sees all of it, and knows everybody else, guesses who took part right in at most "
            f"{found.guess:.1%} of tries (a coin: 50.0%)",
        ),
        *(("think of", warning) for warning in found.warnings),
    ]
    console.print(pairs(lines, title=f"{args.rounds} rounds with {args.patients} patients under {budget}"))
    return 0
