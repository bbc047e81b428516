"""``monai-fedlora feedback``: say whether you agree with an answer, and count how often readers did."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

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
    from monai_fedlora.clinic.opinions import keep_opinion_on

    agrees = getattr(args, _ACTION) == "agree"
    said = {"agrees": agrees, "because": args.because, "instead": "" if agrees else args.instead}
    opinion, path = keep_opinion_on(args.study, args.results, **said)
    print(f"kept that you {opinion.opinion} with {opinion.prediction} for {opinion.study}: {path}")


def _summarise(tables: Sequence[Path]) -> None:
    from monai_fedlora.clinic.opinions import counted_opinions
    from monai_fedlora.commands.console import drawn, open_console

    console = open_console()
    for model in counted_opinions(tables):
        console.print(f"model {model.name} {model.version}, SHA-256 {model.sha256[:12]}")
        rows = [
            (row.group, row.total, row.agreed, f"{row.share:.0%}", "{:.0%} to {:.0%}".format(*row.interval))
            for row in model.agreements
        ]
        console.print(drawn(("answers", "number", "agreed", "share", "95 % interval"), rows))
        for opinion in model.disagreeing:
            other = f", {opinion.instead} instead" if opinion.instead else ""
            console.print(f"{opinion.study}: {opinion.prediction}{other}, because {opinion.because}")
    console.print(
        "Agreement of readers who saw the answer first, on the studies that they chose: it is no accuracy, and mostly "
        "higher."
    )
