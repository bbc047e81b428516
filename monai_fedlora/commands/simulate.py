"""``monai-fedlora simulate``: run a job folder on this machine, with a live view and a closing table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXIT_INCOMPLETE = 1
"""The run came to its end, and something is lacking that it should have done."""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("simulate", help="run a job folder on this machine")
    parser.add_argument("job", type=Path, help="job folder, or the name of a shipped one")
    parser.add_argument(
        "--workspace", required=True, type=Path, metavar="W", help="folder for everything the run writes"
    )
    parser.add_argument("--data", metavar="D", help="folder of prepared sites (default: generated phantoms)")
    parser.add_argument("--backbone", metavar="FILE", help="backbone file (default: the demo weights)")
    parser.add_argument(
        "--overwrite", action="store_true", help="remove what another run has left in W, and nothing else"
    )
    parser.add_argument(
        "--keep-answers",
        action="store_true",
        help="with --in-process: keep what the server sees in every round, for `monai-fedlora audit`",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--threads", type=int, metavar="N", help="sites that run at once (default: all, within reason)")
    how.add_argument(
        "--in-process",
        action="store_true",
        help="no NVFlare: one site after the other in this process, with one frozen backbone for all",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run and show."""
    from rich.live import Live

    from monai_fedlora.api.job_simulation import simulate
    from monai_fedlora.commands.console import open_console

    console = open_console()
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        live.update("starting the server and the sites ...")
        run = simulate(
            args.job,
            workspace=args.workspace,
            data=args.data,
            backbone=args.backbone,
            overwrite=args.overwrite,
            threads=args.threads,
            in_process=args.in_process,
            keep_answers=args.keep_answers,
            on_progress=lambda results: live.update(progress_table(results)),
        )
    return show(run, console)


def show(run: Any, console: Any) -> int:
    """What came of a run, and what it lacks; returns the command's exit code."""
    from monai_fedlora.commands.console import drawn_table

    if run.lacks:
        reasons = ["this run is incomplete", *run.lacks, *([run.error] if run.error else [])]
        console.print("\n".join(reasons), style="red")
        console.print("\n".join(run.refused), style="yellow")
    console.print(drawn_table(run.table()))
    if run.images:
        alarm = "yellow" if run.images in ("synthetic", "mixed") else None
        console.print(f"training images, as the sites say: {run.images}", style=alarm)
    for said in (*(() if run.lacks else run.refused), *run.notes):
        console.print(said, style="yellow")
    console.print(f"results: {run.path}")
    return EXIT_INCOMPLETE if run.lacks else 0


def progress_table(results: Mapping[str, Any]) -> Any:
    """Rounds so far: the sites that have answered, their loss, and the validation score of what they received."""
    from monai_fedlora.api.job_simulation import score_word
    from monai_fedlora.commands.console import drawn

    plan, rows = results["plan"], []
    refused = {(entry["round"], entry["site"]) for entry in results["refused"]}
    for entry in results["rounds"]:
        losses = {site: entry["sites"].get(site, {}).get("train_loss") for site in plan["sites"]}
        open_ = {site: "refused" if (entry["round"], site) in refused else "..." for site in plan["sites"]}
        number = f"{entry['round'] + 1} of {plan['start_round'] + plan['rounds']}"
        cells = [open_[site] if loss is None else f"loss {loss:.3f}" for site, loss in losses.items()]
        rows.append([number, *cells, "" if entry.get("score") is None else f"{entry['score']:.3f}"])
    if results["final"]:
        rows.append(["final", *("done" if site in results["final"] else "..." for site in plan["sites"]), ""])
    title = f"{plan['experiment']}: {plan['method']}, {results['seconds']:.0f} s"
    head = ["round", *plan["sites"], f"mean validation {score_word(results)}"]
    return drawn(head, rows, title=title, text=len(head))
