"""``monai-fedlora compare``: run several methods on the same data and write a table, figures and a report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_fedlora.commands.options import (
    DEFAULT_BUNDLE,
    DEFAULT_SITES,
    add_budget_options,
    add_prompt_options,
    budget_settings,
    parse_class_texts,
    parse_settings,
)
from monai_fedlora.errors import ConfigError

EXIT_FAILED_RUNS = 1


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "compare",
        help="run methods on the same data and write a report",
        description="Run several methods with several seeds on the same sites, splits and backbone, and write "
        "report.html, table.csv, results.csv and comparison.json. A finished run is kept; the same command goes on "
        "where it was stopped and tries again what failed, and further methods or seeds can be added. Images, code or "
        "settings that changed since are refused.",
    )
    parser.add_argument(
        "--methods",
        required=True,
        help="names, comma-separated, or all (that the size can run); the first is the reference. ROW=NAME is one with "
        "settings of its own: fedit,tuned=fedit with --set tuned.fine_tune_epochs=2",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="R", help="folder of the results")
    parser.add_argument("--data", metavar="D", help="folder of prepared sites (default: the bundle's phantoms)")
    parser.add_argument("--sites", help=f"names, comma-separated (default: all of D; of phantoms {DEFAULT_SITES})")
    parser.add_argument("--seeds", default="3", metavar="N", help="how many, or a list such as 0,4,7 (default: 3)")
    parser.add_argument(
        "--splits",
        type=int,
        default=0,
        metavar="K",
        help="divide every site's cases into K parts, by patient and class, and test each once, in a run per method, "
        "seed and part (default: the cases' own split)",
    )
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="how often to divide them (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument("--local-epochs", type=int, default=1, metavar="N", help="epochs per round (default: 1)")
    parser.add_argument(
        "--mean-by-cases",
        action="store_true",
        help="weight sites by their numbers of test cases in means over sites and differences of methods (default: all "
        "alike); averages of a round go by training cases unless --set site_weights=equal",
    )
    parser.add_argument(
        "--equal-steps",
        action="store_true",
        help="let every part of every method take as many optimiser steps in a round: each phase of fedrep, ditto or "
        "feddpa goes through a site's cases as often as other methods do, and centralised takes steps of so many times "
        "the cases (default: phases divide a round, so that all methods compute as much)",
    )
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help=f"training bundle (default: {DEFAULT_BUNDLE})")
    parser.add_argument("--size", help="backbone by name, such as base or vit_base_16 (default: the bundle's)")
    parser.add_argument("--backbone", metavar="FILE", help="backbone file (default: the size's demo weights)")
    add_prompt_options(parser)
    add_budget_options(parser)
    parser.add_argument(
        "--unseen",
        default="none",
        metavar="SITE,...",
        help="sites to hold out, one at a time, or all; each costs a further run per method and seed (default: none)",
    )
    parser.add_argument(
        "--cases-for-new",
        default="5,10,20",
        metavar="N,...",
        help="training patients for the private part of a site that was held out (default: 5,10,20)",
    )
    parser.add_argument(
        "--cases",
        default="",
        metavar="N,...",
        help="learning curves: each site in turn has N of its training patients, beside training alone on them; "
        "a further run per site, number, method, seed and part (default: none)",
    )
    parser.add_argument("--cases-at", metavar="SITE,...", help="sites that have a learning curve (default: all)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[METHOD.]NAME=VALUE",
        help="a setting of training (batch_size=8), of the federation (server_optimizer=fedadam, fine_tune_epochs=2) "
        "or of every method that knows it (rank=16), or of one method or row (fedavg.learning_rate=0.0005); may be "
        "repeated. Unless set, augment=false and cache_features=true",
    )
    parser.add_argument(
        "--tune",
        metavar="NAME[=VALUE:...],...",
        help="settings to choose for each method by the validation cases of the first split, with the same number of "
        "runs, at most eight: learning_rate (a quarter and four times of it), head (shared and private), rank=4:16",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, one thread each (default: 1)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Compare, and show what was found."""
    from monai_fedlora.api.methods_compared import compare
    from monai_fedlora.commands.console import drawn_table, open_console

    console = open_console()
    common, own = split_settings({**parse_settings(args.set), **budget_settings(args)})
    compared = compare(
        args.methods if args.methods == "all" else parse_methods(args.methods),
        output=args.output,
        data=args.data,
        sites=args.sites.split(",") if args.sites else None,
        seeds=parse_seeds(args.seeds),
        splits=args.splits,
        repeats=args.repeats,
        rounds=args.rounds,
        local_epochs=args.local_epochs,
        equal_steps=args.equal_steps,
        mean_by_cases=args.mean_by_cases,
        bundle=args.bundle,
        size=args.size,
        backbone=args.backbone,
        prompts=args.prompts,
        class_texts=parse_class_texts(args.class_text),
        unseen={"none": (), "all": "all"}.get(args.unseen, tuple(args.unseen.split(","))),
        cases_for_new=_numbers("--cases-for-new", args.cases_for_new),
        cases=_numbers("--cases", args.cases),
        cases_at=args.cases_at.split(",") if args.cases_at else (),
        settings=common,
        method_settings=own,
        tune=parse_grids(args.tune or ""),
        workers=args.workers,
        watch=lambda runs, kept: _progress(console, runs, kept),
        note=lambda text: console.print(text, style="yellow"),
    )
    failures = compared.failures
    for name, reason in failures.items():
        console.print(f"{name}: {reason}", style="red")
    if failures:
        runs = len(compared.outcome.comparison.runs())
        again = f"how is written in {compared.failed}, and the same command tries them again"
        console.print(f"{len(failures)} of {runs} runs failed; {again}", style="red")
    if compared.report is None:
        return EXIT_FAILED_RUNS
    console.print(drawn_table(compared.table()))
    for note in compared.notes:
        console.print(note)
    for more in (compared.learning_curve(), compared.unseen()):
        if more:
            console.print(drawn_table(more))
    console.print(f"report: {compared.report}")
    return EXIT_FAILED_RUNS if failures else 0


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"3"`` is three seeds from 0 on, ``"0,4,7"`` these ones.

    Raises:
        ConfigError: it is neither.
    """
    numbers = _numbers("--seeds", text or "0")
    return numbers if "," in text else tuple(range(*numbers))


def parse_methods(text: str) -> dict[str, str]:
    """``fedit,tuned=fedit`` as the methods of rows.

    Raises:
        ConfigError: two rows have one name.
    """
    rows: dict[str, str] = {}
    for part in text.split(","):
        row, equals, name = part.partition("=")
        if row in rows:
            raise ConfigError(f"--methods {text}: {row!r} stands there twice; give one a name of its own: other={row}")
        rows[row] = name if equals else row
    return rows


def parse_grids(text: str) -> dict[str, list[Any] | None]:
    """``learning_rate,rank=4:16`` as values by name; None where none are given.

    Raises:
        ConfigError: a name is missing or occurs twice.
    """
    grids: dict[str, list[Any] | None] = {}
    for part in filter(None, text.split(",")):
        name, equals, values = part.partition("=")
        if not name or name in grids:
            raise ConfigError(f"--tune {text}: write names of settings, each once, such as learning_rate,rank=4:16")
        given = [parse_settings([f"{name}={value}"])[name] for value in values.split(":")]
        grids[name] = given if equals else None
    return grids


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings for all, and by method those whose name starts with a method's and a dot."""
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        method, dot, rest = name.partition(".")
        if dot:
            own.setdefault(method, {})[rest] = value
        else:
            common[name] = value
    return common, own


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise ConfigError(f"{option} {text}: write whole numbers with commas between them") from None


@contextmanager
def _progress(console: Any, runs: int, kept: int) -> Iterator[Callable[[Any, float], None]]:
    """A bar for all runs and one for each that is going on."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if kept:
        console.print(f"{kept} of {runs} runs are there already")
    columns: Sequence[Any] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        total = bars.add_task("runs", total=runs, completed=kept)
        own: dict[Any, Any] = {}

        def show(run: Any, share: float) -> None:
            if share < 1:
                if run not in own:
                    own[run] = bars.add_task(run.name, total=100)
                bars.update(own[run], completed=int(100 * share))
                return
            if run in own:
                bars.remove_task(own.pop(run))
            bars.advance(total)
            if not console.is_terminal:
                console.print(f"finished {run.name}")

        yield show
