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
    add_prompt_options,
    chosen_prompts,
    parse_settings,
)
from monai_fedlora.errors import ConfigError, FedLoraError

EXIT_FAILED_RUNS = 1
EXTRA = ("scipy.stats", "statsmodels.stats.multitest")
"""What only the report needs."""


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
        help="names, comma-separated, or all (that the size can run); the first is the reference",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="R", help="folder of the results")
    parser.add_argument("--data", metavar="D", help="folder of prepared sites (default: the bundle's phantoms)")
    parser.add_argument("--sites", help=f"names, comma-separated (default: all of D; of phantoms {DEFAULT_SITES})")
    parser.add_argument("--seeds", default="3", metavar="N", help="how many, or a list such as 0,4,7 (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument("--local-epochs", type=int, default=1, metavar="N", help="epochs per round (default: 1)")
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help=f"training bundle (default: {DEFAULT_BUNDLE})")
    parser.add_argument("--size", help="backbone by name, such as base or vit_base_16 (default: the bundle's)")
    parser.add_argument("--backbone", metavar="FILE", help="backbone file (default: the size's demo weights)")
    add_prompt_options(parser)
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
        help="training cases for the private part of a site that was held out (default: 5,10,20)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[METHOD.]NAME=VALUE",
        help="a setting of training (batch_size=8) or of every method that knows it (rank=16), or of one method "
        "(fedavg.learning_rate=0.0005); may be repeated. Unless set, augment=false and cache_features=true",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, one thread each (default: 1)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run what is missing and write the report."""
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.comparison.method_page import write_report
    from monai_fedlora.comparison.outcome import Outcome, write_files
    from monai_fedlora.comparison.runner import FAILED, run_missing, stored_results

    check_extra()
    console = open_console()
    task, is_demo = _task(args)
    with _progress(task, console) as on_progress:
        failures = run_missing(task, workers=args.workers, on_progress=on_progress)
    outcome = Outcome(
        comparison=task.comparison,
        datalists=task.datalists,
        backbone=Path(task.backbone).name,
        is_demo=is_demo,
        results=stored_results(task),
        failures=failures,
    )
    for failure in failures:
        console.print(f"{failure.run.name}: {failure.reason}", style="red", markup=False, soft_wrap=True)
    if failures:
        console.print(
            f"{len(failures)} of {len(task.comparison.runs())} runs failed; how is written in "
            f"{args.output / FAILED}, and the same command tries them again",
            style="red",
            markup=False,
            soft_wrap=True,
        )
    if not outcome.results:
        return EXIT_FAILED_RUNS
    write_files(outcome, args.output)
    report = write_report(outcome, args.output)
    console.print(closing_table(outcome))
    console.print(outcome.verdict, markup=False, soft_wrap=True)
    if outcome.of_images:
        style = "yellow"
        console.print(f"Images: {outcome.images}; these numbers say nothing about real patients.", style=style)
    if task.comparison.unseen:
        console.print(unseen_table(outcome))
    console.print(f"report: {report}", markup=False, soft_wrap=True)
    return EXIT_FAILED_RUNS if failures else 0


def check_extra() -> None:
    """Look for what the report is written with, before hours of runs.

    Raises:
        ConfigError: a package of the extra ``compare`` is not installed, or cannot be imported.
    """
    from importlib import import_module

    for name in EXTRA:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"the report of a comparison needs {name}, which cannot be imported ({error}); install it with "
                "pip install 'monai-fedlora[compare]'"
            ) from error


def _task(args: argparse.Namespace) -> tuple[Any, bool]:
    """Everything the runs need, and whether the backbone is the packaged demo file."""
    import os

    from monai_fedlora.comparison.comparison_data import data_hash, load_sites, prepared_sites
    from monai_fedlora.comparison.comparison_settings import Comparison, assigned
    from monai_fedlora.comparison.runner import Task
    from monai_fedlora.environment import DATA
    from monai_fedlora.networks.catalogue import demo_weights
    from monai_fedlora.networks.pinned import find_backbone, pin_backbone
    from monai_fedlora.networks.weights import backbone_sha256 as sha256_of
    from monai_fedlora.resources import bundle_setting

    if args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: at least one is needed")
    size = args.size or bundle_setting(args.bundle, "train", "size")
    backbone = find_backbone(size, args.backbone)
    demo = demo_weights(size)
    names = _all_methods(size) if args.methods == "all" else args.methods.split(",")
    common, own = split_settings(parse_settings(args.set))
    methods = assigned(names, common, own)
    texts = any(_reads_text(name, settings) for name, settings in methods.items())
    digest = pin_backbone(size, backbone, texts=texts)
    data = args.data or os.environ.get(DATA)
    sites = args.sites.split(",") if args.sites else prepared_sites(data) if data else DEFAULT_SITES.split(",")
    datalists = load_sites(sites, bundle=args.bundle, data_root=data)
    prompts = chosen_prompts(args, datalists[sites[0]].classes)
    if prompts is not None and not texts:
        raise ConfigError(
            f"none of {', '.join(names)} compares images with texts; leave --class-text and --prompts out"
        )
    unseen = {"none": (), "all": tuple(sites)}.get(args.unseen)
    comparison = Comparison(
        methods=methods,
        bundle=args.bundle,
        size=size,
        backbone_sha256=digest,
        classes=datalists[sites[0]].classes,
        data={site: data_hash(datalist) for site, datalist in datalists.items()},
        rounds=args.rounds,
        local_epochs=args.local_epochs,
        seeds=parse_seeds(args.seeds),
        unseen=tuple(args.unseen.split(",")) if unseen is None else unseen,
        new_site_cases=_numbers("--cases-for-new", args.cases_for_new),
        prompts=prompts,
    )
    return Task(comparison, datalists, backbone, args.output), bool(demo) and digest == sha256_of(str(demo))


def _all_methods(size: str) -> list[str]:
    """All methods that a backbone of this size can run; one of another package that cannot be used is told."""
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.methods import get_method, method_names
    from monai_fedlora.networks.catalogue import architecture

    able, reads_text = [], architecture(size).text is not None
    for name in method_names():
        try:
            method = get_method(name)
        except FedLoraError as error:
            open_console().print(f"note: left out: {error}", style="yellow", markup=False, soft_wrap=True)
            continue
        if reads_text or not method.reads_text:
            able.append(name)
    return able


def _reads_text(name: str, settings: Mapping[str, Any]) -> bool:
    from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
    from monai_fedlora.methods import get_method

    return get_method(name, {k: v for k, v in settings.items() if k not in TRAINING_SETTINGS}).reads_text


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"3"`` is three seeds from 0 on, ``"0,4,7"`` these ones.

    Raises:
        ConfigError: it is neither.
    """
    numbers = _numbers("--seeds", text or "0")
    return numbers if "," in text else tuple(range(*numbers))


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
def _progress(task: Any, console: Any) -> Iterator[Callable[[Any, float], None]]:
    """A bar for all runs and one for each that is going on."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from monai_fedlora.comparison.runner import stored_results

    kept, runs = len(stored_results(task)), task.comparison.runs()
    if kept:
        console.print(f"{kept} of {len(runs)} runs are there already")
    columns: Sequence[Any] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        total = bars.add_task("runs", total=len(runs), completed=kept)
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
                console.print(f"finished {run.name}", markup=False)

        yield show


def closing_table(outcome: Any) -> Any:
    """The methods with their means, worst sites, bytes and seconds."""
    from monai_fedlora.comparison.statistics import written
    from monai_fedlora.rendering.tables import MISSING, plural

    comparison = outcome.comparison
    heads = ["bal. acc.", "worst\nsite", "AUROC", "shared\nonly", "sent", "received", "time"]
    title = f"{plural(len(comparison.sites), 'site')}, {plural(len(comparison.seeds), 'seed')}"
    table = _table(title, heads)
    for summary in outcome.summaries:
        traffic, seconds = outcome.traffic(summary.method), outcome.seconds(summary.method)
        table.add_row(
            summary.method,
            written(summary.score),
            *map(_mean, (summary.worst, summary.auroc, summary.shared)),
            *([MISSING] * 2 if traffic is None else [f"{count / 1000:,.0f} kB" for count in traffic]),
            MISSING if seconds is None else f"{seconds:,.0f} s",
            style="bold" if summary.method in outcome.ties else None,
        )
    return table


def unseen_table(outcome: Any) -> Any:
    """What the methods do at a site that was held out, by number of its own training cases."""
    cases = (0, *outcome.comparison.new_site_cases)
    table = _table("a site that did not take part", ["at once" if n == 0 else f"{n} cases" for n in cases])
    for summary in outcome.summaries:
        table.add_row(summary.method, *(_mean(summary.unseen.get(n)) for n in cases))
    return table


def _table(title: str, heads: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _mean(value: Any) -> str:
    from monai_fedlora.rendering.tables import shown

    return shown(None if value is None else value.mean)
