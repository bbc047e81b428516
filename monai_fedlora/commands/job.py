"""``monai-fedlora job``: write an NVFlare job folder for a federation's own sites."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_fedlora.commands.options import (
    DEFAULT_BUNDLE,
    DEFAULT_SITES,
    add_budget_options,
    add_prompt_options,
    add_value_option,
    budget_settings,
    parse_class_texts,
    parse_settings,
)
from monai_fedlora.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("job", help="write an NVFlare job folder for your own sites")
    parser.add_argument("method", help="a name from `monai-fedlora methods`")
    parser.add_argument("--output", required=True, type=Path, metavar="J", help="job folder to create")
    parser.add_argument("--sites", default=DEFAULT_SITES, help=f"names, comma-separated (default: {DEFAULT_SITES})")
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="rounds (default: 5; with --resume, as many as were left, and 0 repeats the final evaluation alone)",
    )
    parser.add_argument("--local-epochs", type=int, default=1, metavar="N", help="epochs per round (default: 1)")
    parser.add_argument("--task", help="classification, segmentation or regression (default: the bundle's)")
    parser.add_argument("--classes", help="names of classes in label order, or of structures (default: the bundle's)")
    add_value_option(parser, "number that a regression learns, as in the sites' data")
    add_prompt_options(parser)
    parser.add_argument("--experiment", help="name that keys private state (default: the job folder's name)")
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help=f"training bundle (default: {DEFAULT_BUNDLE})")
    parser.add_argument("--size", help="backbone by name, such as base or vit_base_16 (default: the bundle's)")
    parser.add_argument(
        "--backbone", metavar="FILE", help="backbone to pin: file, folder or hub id (default: the size's demo weights)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--wire",
        choices=("float16", "float32", "int8"),
        default="float16",
        help="type that travels; with int8, changes go up in eight bits and float16 comes down (default: float16)",
    )
    parser.add_argument(
        "--top-k",
        type=float,
        default=1.0,
        metavar="K",
        help="share of each tensor's values, those that changed most, that a site sends; the others wait (default: 1)",
    )
    parser.add_argument(
        "--cases",
        metavar="SITE=N,...",
        help="announced training cases; an update claiming more is refused, and a site that announces none may have "
        "no more than --max-share of the weight. With --dp-epsilon: patients, of every site",
    )
    parser.add_argument(
        "--max-share",
        type=float,
        default=0.75,
        metavar="S",
        help="largest share of a round's weight for a site without announced cases, from 0.5 (default: 0.75)",
    )
    parser.add_argument(
        "--update-bound",
        type=float,
        default=5.0,
        metavar="F",
        help="clip a change that is more than F times as long as the median one (default: 5)",
    )
    add_budget_options(parser)
    _add_participation_options(parser)
    parser.add_argument("--start-from", metavar="FILE", help="stored shared.safetensors, or a PEFT adapter folder")
    parser.add_argument("--resume", action="store_true", help="with --start-from: go on with the round after it")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: go on with other settings than before; the plan says which",
    )
    parser.add_argument(
        "--allow-versions",
        action="store_true",
        help="record the versions of the sites' packages and bundles (default: those installed here are pinned, and a "
        "site with others refuses)",
    )
    parser.add_argument("--allow-listed", action="store_true", help="no custom folder; sites allow-list the classes")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the method (rank=16, head=private, targets=q,v; a list of one: taps=5,) or of training "
        "(batch_size=8); may be repeated",
    )
    return parser


def _add_participation_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-sites",
        type=int,
        metavar="K",
        help="begin with K sites; a round with fewer accepted answers does not count, and is tried three times "
        "(default: begin with all, go on with one)",
    )
    parser.add_argument(
        "--required-sites", metavar="A,B", help="sites without whose accepted answers no round counts (default: none)"
    )
    parser.add_argument(
        "--round-timeout",
        type=int,
        metavar="S",
        help="seconds for which the server waits for a round's answers (default: for every connected site)",
    )
    parser.add_argument(
        "--first-round-timeout", type=int, metavar="S", help="the same for the first round (default: ten times as long)"
    )
    parser.add_argument(
        "--final-timeout",
        type=int,
        metavar="S",
        help="the same for the final evaluation (default: that of the first round)",
    )
    parser.add_argument(
        "--sample", type=float, default=1.0, metavar="SHARE", help="share of the sites asked in a round (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what travels."""
    from monai_fedlora.api.written_job import write_job
    from monai_fedlora.commands.console import open_console

    job = write_job(
        args.method,
        output=args.output,
        sites=args.sites.split(","),
        rounds=args.rounds,
        local_epochs=args.local_epochs,
        task=args.task,
        classes=args.classes.split(",") if args.classes else None,
        values=dict(args.value) if args.value else None,
        bundle=args.bundle,
        size=args.size,
        backbone=args.backbone,
        prompts=args.prompts,
        class_texts=parse_class_texts(args.class_text),
        settings={**parse_settings(args.set), **budget_settings(args)},
        experiment=args.experiment,
        seed=args.seed,
        wire_dtype=args.wire,
        top_k=args.top_k,
        declared_cases=_cases(args.cases),
        max_share=args.max_share,
        update_bound=args.update_bound,
        min_sites=args.min_sites,
        required_sites=args.required_sites.split(",") if args.required_sites else (),
        round_timeout=args.round_timeout,
        first_round_timeout=args.first_round_timeout,
        final_timeout=args.final_timeout,
        sample=args.sample,
        start_from=args.start_from,
        resume=args.resume,
        accept_changes=args.accept_changes,
        allow_versions=args.allow_versions,
        custom_folder=not args.allow_listed,
    )
    plan, console = job.plan, open_console()
    last = plan.start_round + plan.rounds - 1
    console.print(f"wrote {job.folder}: {plan.method}, {len(plan.sites)} sites, rounds {plan.start_round} to {last}")
    for note in job.notes:
        console.print(note)
    next_one = f"monai-fedlora simulate {job.folder} --workspace runs/{plan.experiment} --data PREPARED"
    console.print(f"next: {next_one} (without --data: on made-up images)")
    return 0


def _cases(text: str | None) -> dict[str, int]:
    if not text:
        return {}
    try:
        return {site: int(count) for site, count in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise ConfigError(f"--cases {text}: write SITE=N,SITE=N") from None
