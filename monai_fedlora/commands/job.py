"""``monai-fedlora job``: write an NVFlare job folder for a federation's own sites."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_fedlora.commands.options import (
    DEFAULT_BUNDLE,
    DEFAULT_SITES,
    add_prompt_options,
    parse_class_texts,
    parse_settings,
)
from monai_fedlora.errors import ConfigError

_REPORTED_CASES = 1000
"""For which the output says what a report can hold."""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("job", help="write an NVFlare job folder for your own sites")
    parser.add_argument("method", help="a name from `monai-fedlora methods`")
    parser.add_argument("--output", required=True, type=Path, metavar="J", help="job folder to create")
    parser.add_argument("--sites", default=DEFAULT_SITES, help=f"names, comma-separated (default: {DEFAULT_SITES})")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="rounds (default: 5; with --resume, as many as were left)"
    )
    parser.add_argument("--local-epochs", type=int, default=1, metavar="N", help="epochs per round (default: 1)")
    parser.add_argument("--classes", help="class names in label order (default: the bundle's)")
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
        "no more than --max-share of the weight",
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
    parser.add_argument("--start-from", metavar="FILE", help="stored shared.safetensors, or a PEFT adapter folder")
    parser.add_argument("--resume", action="store_true", help="with --start-from: go on with the round after it")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: go on with other settings than before; the plan says which",
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


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what travels."""
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.federated.changes import listed
    from monai_fedlora.federated.initial import (
        build_shared,
        changes_since,
        check_resumable,
        check_steps,
        needs_backbone,
        rounds_left,
        start_origin,
        starting_point,
        stored_start,
    )
    from monai_fedlora.federated.jobs import write_job
    from monai_fedlora.federated.plan import Plan
    from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
    from monai_fedlora.methods import get_method
    from monai_fedlora.networks.pinned import find_backbone, pin_backbone
    from monai_fedlora.networks.prompts import bundle_prompts, own_prompts
    from monai_fedlora.resources import bundle_setting
    from monai_fedlora.site_report import report_bits

    if args.accept_changes and not args.resume:
        raise ConfigError("--accept-changes is of --resume, which goes on with a stored run; leave it out")
    settings = parse_settings(args.set)
    size = args.size or bundle_setting(args.bundle, "train", "size")
    classes = args.classes.split(",") if args.classes else bundle_setting(args.bundle, "inference", "classes")
    backbone = find_backbone(size, args.backbone)
    own = {k: v for k, v in settings.items() if k not in TRAINING_SETTINGS}
    reads_text = get_method(args.method, own).reads_text
    common: dict[str, Any] = {
        "experiment": args.experiment or args.output.name,
        "bundle": args.bundle,
        "method": args.method,
        "method_args": own,
        "sites": tuple(args.sites.split(",")),
        "classes": tuple(classes),
        "rounds": 5 if args.rounds is None else args.rounds,
        "local_epochs": args.local_epochs,
        "size": size,
        "backbone_sha256": pin_backbone(size, backbone, texts=reads_text),
        "seed": args.seed,
        "wire_dtype": args.wire,
        "top_k": args.top_k,
        "declared_cases": _cases(args.cases),
        "max_share": args.max_share,
        "update_bound": args.update_bound,
        "training": {k: v for k, v in settings.items() if k in TRAINING_SETTINGS},
    }
    class_texts = parse_class_texts(args.class_text)
    if args.prompts is not None or class_texts:
        common["prompts"] = own_prompts(args.bundle, classes, file=args.prompts, class_texts=class_texts)
    else:
        common["prompts"] = bundle_prompts(args.bundle) if reads_text else None
    plan = Plan(**common)
    if plan.declared_cases:
        check_steps(plan)
    manifest, _ = build_shared(plan, backbone=backbone if needs_backbone(plan) else None)
    with starting_point(args.start_from, plan=plan, manifest=manifest) as (initial, stored_round):
        if not args.resume:
            plan = replace(plan, start=start_origin(args.start_from))
        else:
            if initial is None or stored_round is None:
                raise ConfigError("--resume needs --start-from with a stored shared.safetensors, which knows its round")
            check_resumable(initial, plan=plan)
            common |= {
                "start": stored_start(initial),
                "start_round": stored_round + 1,
                "rounds": rounds_left(initial) if args.rounds is None else args.rounds,
            }
            changes, accepted = changes_since(initial, plan=Plan(**common))
            if changes and not args.accept_changes:
                raise ConfigError(
                    f"{initial} was stored with other settings than the job would have ({listed(changes)}); give the "
                    "same ones to go on to the bits of a run that nobody disturbed, or add --accept-changes"
                )
            plan = Plan(**common, changed=tuple(sorted({*accepted, *changes})))
        write_job(plan, manifest, args.output, initial=initial, custom_folder=not args.allow_listed)
    console = open_console()
    console.print(
        f"wrote {args.output}: {plan.method}, {len(plan.sites)} sites, rounds {plan.start_round} to "
        f"{plan.start_round + plan.rounds - 1}"
    )
    if plan.changed:
        console.print(f"not as in the rounds before: {', '.join(plan.changed)}", markup=False, soft_wrap=True)
    if plan.start is not None:
        console.print(
            f"starts from {plan.start.name}, of {plan.start.kind} images; every model of this run will say so",
            markup=False,
            soft_wrap=True,
        )
    console.print(
        f"per site and round {len(manifest.up.entries)} tensors of {manifest.up.nbytes:,} bytes go up and "
        f"{len(manifest.down.entries)} of {manifest.down.nbytes:,} bytes come down; "
        f"they are listed in {args.output / 'app' / 'config' / 'manifest.json'}"
    )
    most = math.ceil(report_bits(classes=len(plan.classes), cases=_REPORTED_CASES) / 8)
    console.print(
        f"the report beside them can say at most {most:,} bytes, for {_REPORTED_CASES:,} validation cases; a change of "
        f"more than {plan.update_bound:g} times the median length is clipped, and a site that has not declared its "
        f"cases has at most {plan.max_share:.0%} of the weight"
    )
    console.print(
        f"next: monai-fedlora simulate {args.output} --workspace runs/{plan.experiment} --data PREPARED "
        "(without --data: on made-up images)",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _cases(text: str | None) -> dict[str, int]:
    if not text:
        return {}
    try:
        return {site: int(count) for site, count in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise ConfigError(f"--cases {text}: write SITE=N,SITE=N") from None
