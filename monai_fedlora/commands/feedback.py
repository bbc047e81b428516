"""``monai-fedlora feedback``: say whether you agree with an answer, and count how often readers did."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ACTION = "feedback_action"


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "feedback",
        help="keep whether readers agree with answers, and count how often",
        description="Keep, beside the results of predict, whether a reader agrees with an answer, and count how often "
        "readers did. Nothing of it leaves the machine. Reasons must name nobody.",
    )
    actions = parser.add_subparsers(title="actions", dest=_ACTION, metavar="ACTION", required=True)
    for name, text in (("agree", "the most probable class is right"), ("disagree", "it is not, and why")):
        action = actions.add_parser(name, help=text, description=f"Keep in RESULTS/feedback.csv: {text}.")
        action.add_argument("results", type=Path, metavar="RESULTS", help="output folder of predict")
        action.add_argument("study", metavar="STUDY", help="name of the study, as in predictions.csv")
        action.add_argument(
            "--because",
            default="",
            metavar="TEXT",
            required=name == "disagree",
            help="why, in a line that names nobody",
        )
        if name == "disagree":
            action.add_argument("--instead", default="", metavar="CLASS", help="the class that you would have given")
    summarise = actions.add_parser(
        "summarise",
        help="how often readers agreed, with 95 %% intervals",
        description="How often readers agreed: over all, by predicted class, by state and of undecided answers, each "
        "with a 95 %% interval (Wilson score). Of several opinions on an answer the last counts.",
    )
    summarise.add_argument(
        "tables", nargs="+", type=Path, metavar="TABLE", help="feedback.csv, or a folder that holds one"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Keep an opinion, or count them."""
    if getattr(args, _ACTION) == "summarise":
        _summarise(args.tables)
    else:
        _keep(args)
    return 0


def _keep(args: argparse.Namespace) -> None:
    from monai_fedlora.clinic.many import find_result
    from monai_fedlora.clinic.reader_feedback import keep_opinion, opinion_on

    agrees = getattr(args, _ACTION) == "agree"
    result = find_result(args.results, args.study)
    opinion = opinion_on(result, agrees=agrees, because=args.because, instead="" if agrees else args.instead)
    path = keep_opinion(opinion, args.results)
    print(f"kept that you {opinion.opinion} with {opinion.prediction} for {opinion.study}: {path}")


def _summarise(tables: Sequence[Path]) -> None:
    from monai_fedlora.clinic.reader_feedback import DISAGREE, agreements, last_opinions, read_opinions
    from monai_fedlora.commands.console import open_console

    console = open_console()
    found = [opinion for table in tables for opinion in last_opinions(read_opinions(table))]
    for sha256 in dict.fromkeys(opinion.sha256 for opinion in found):
        opinions = [opinion for opinion in found if opinion.sha256 == sha256]
        first = opinions[0]
        print(f"model {first.model} {first.version}, SHA-256 {sha256[:12]}")
        console.print(_table(agreements(opinions)))
        for opinion in opinions:
            if opinion.opinion == DISAGREE:
                other = f", {opinion.instead} instead" if opinion.instead else ""
                print(f"{opinion.study}: {opinion.prediction}{other}, because {opinion.because}")
    print(
        "Agreement of readers who saw the answer first, on the studies that they chose: it is no accuracy, and mostly "
        "higher."
    )


def _table(rows: Sequence[Any]) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for title, side in (
        ("answers", "left"),
        ("number", "right"),
        ("agreed", "right"),
        ("share", "right"),
        ("95 % interval", "right"),
    ):
        table.add_column(title, justify=side)  # type: ignore[arg-type]
    for row in rows:
        low, high = row.interval
        table.add_row(
            escape(row.group), str(row.total), str(row.agreed), f"{row.share:.0%}", f"{low:.0%} to {high:.0%}"
        )
    return table
