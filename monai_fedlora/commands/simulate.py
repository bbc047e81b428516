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
    from monai_fedlora.federated.simulator import last_error

    console = open_console()
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        live.update("starting the server and the sites ...")

        def show(results: Mapping[str, Any]) -> None:
            live.update(progress_table(results))

        results = simulate(
            args.job,
            workspace=args.workspace,
            data=args.data,
            backbone=args.backbone,
            overwrite=args.overwrite,
            threads=args.threads,
            in_process=args.in_process,
            on_progress=show,
        )
    show_end(console, results, args.workspace, last_error(args.workspace))
    return EXIT_INCOMPLETE if results["lacks"] else 0


def show_end(console: Any, results: Mapping[str, Any], workspace: Path, error: str) -> None:
    """The closing table with what was refused; in front of all what the run lacks, and why.

    Args:
        console: where to.
        results: of a run that has come to its end.
        workspace: of the run.
        error: the last that a site has noted, or nothing.
    """
    from monai_fedlora.federated.limits import limits_said
    from monai_fedlora.federated.run_record import restarts_said

    refused = [f"refused in round {entry['round']}: {entry['site']}: {entry['reason']}" for entry in results["refused"]]
    if results["lacks"]:
        reasons = ["this run is incomplete", *results["lacks"], *([error] if error else [])]
        console.print("\n".join(reasons), style="red", markup=False, soft_wrap=True)
        console.print("\n".join(refused), style="yellow", markup=False, soft_wrap=True)
    console.print(closing_table(results))
    if said := results.get("training_data"):
        alarm = "yellow" if said["kind"] in ("synthetic", "mixed") else None
        console.print(f"training images, as the sites say: {said['kind']}", style=alarm, markup=False)
    if refused and not results["lacks"]:
        console.print("\n".join(refused), style="yellow", markup=False, soft_wrap=True)
    for said in (*restarts_said(results), *limits_said(results)):
        console.print(said, style="yellow", markup=False, soft_wrap=True)
    console.print(f"results: {workspace / 'results.json'}", markup=False, soft_wrap=True)


def progress_table(results: Mapping[str, Any]) -> Any:
    """Rounds so far: the sites that have answered, their loss, and the validation score of what they received."""
    from rich.table import Table

    plan = results["plan"]
    table = Table(title=f"{plan['experiment']}: {plan['method']}, {results['seconds']:.0f} s")
    for column in ("round", *plan["sites"], "mean validation balanced accuracy"):
        table.add_column(column, overflow="fold")
    refused = {(entry["round"], entry["site"]) for entry in results["refused"]}
    for entry in results["rounds"]:
        losses = {site: entry["sites"].get(site, {}).get("train_loss") for site in plan["sites"]}
        open_ = {site: "refused" if (entry["round"], site) in refused else "..." for site in plan["sites"]}
        score = entry.get("score")
        table.add_row(
            f"{entry['round'] + 1} of {plan['start_round'] + plan['rounds']}",
            *(open_[site] if loss is None else f"loss {loss:.3f}" for site, loss in losses.items()),
            "" if score is None else f"{score:.3f}",
        )
    if results["final"]:
        table.add_row("final", *("done" if site in results["final"] else "..." for site in plan["sites"]), "")
    return table


def closing_table(results: Mapping[str, Any]) -> Any:
    """Each site's test metrics of the personal and the shared model, and what it sent and received, if it did."""
    from rich import box
    from rich.table import Table

    from monai_fedlora.site_report import PERSONAL, SHARED

    plan = results["plan"]
    how_long = "1 round" if plan["rounds"] == 1 else f"{plan['rounds']} rounds"
    table = Table(
        title=f"{plan['experiment']}: test split after {how_long} ({results['seconds']:.0f} s)",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("site", no_wrap=True)
    for column in ("cases", "personal\nbal. acc.", "shared\nbal. acc.", "AUROC", "sens.", "spec.", "sent", "received"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = []
    counted = any("bytes_sent" in answer for entry in results["rounds"] for answer in entry["sites"].values())
    for site in plan["sites"]:
        test = results["final"].get(site, {}).get("test", {})
        personal, shared = test.get(PERSONAL, {}), test.get(SHARED, {})
        answers = [entry["sites"].get(site, {}) for entry in results["rounds"]]
        numbers = [personal.get("balanced_accuracy"), shared.get("balanced_accuracy"), personal.get("auroc")]
        numbers += [personal.get("sensitivity"), personal.get("specificity")]
        rows.append(numbers)
        traffic = [sum(answer.get(key, 0) for answer in answers) for key in ("bytes_sent", "bytes_received")]
        shown = map(_bytes, traffic) if counted else ("", "")
        table.add_row(site, str(personal.get("n", "")), *map(_number, numbers), *shown)
    means = []
    for values in zip(*rows, strict=True):
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else None)
    table.add_section()
    table.add_row("mean", "", *map(_number, means), "", "")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _bytes(count: int) -> str:
    return f"{count / 1000:,.0f} kB"
