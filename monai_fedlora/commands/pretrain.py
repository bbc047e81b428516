"""``monai-fedlora pretrain``: a backbone without labels, on labelled phantoms, or on pictures with captions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "pretrain", help="pre-train a backbone: without labels, on labelled phantoms, or a CLIP on generated pictures"
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "--data",
        type=Path,
        action="append",
        metavar="D",
        help="folder of prepared sites; may be repeated",
    )
    images.add_argument(
        "--captioned",
        type=int,
        metavar="N",
        help="train a CLIP on N generated skin lesions and retinas with captions; tokens go beside the output",
    )
    images.add_argument(
        "--supervised",
        action="store_true",
        help="train a cine backbone and its decoder, or a backbone for photographs, on labelled phantoms; goes on "
        "where it was stopped",
    )
    parser.add_argument(
        "--phantoms", type=int, metavar="N", help="new ones in each epoch of --supervised (default: 512)"
    )
    parser.add_argument("--views", type=int, metavar="N", help="how often each is shown in its epoch (default: 4)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that draw phantoms beside the training (default: 0)"
    )
    parser.add_argument("--cameras", metavar="A,B,...", help="that take generated pictures, by letter (default: all)")
    parser.add_argument(
        "--start",
        metavar="FILE",
        help="weights from which --supervised starts, or those of vit_demo for the image tower (default: random ones)",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="safetensors file to write")
    parser.add_argument("--size", default="small", help="a backbone's name (default: small)")
    parser.add_argument(
        "--style",
        action="append",
        default=[],
        metavar="S",
        help="style of the photographs, dermoscopy, fundus or plain: once for all, or once after each --data",
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--learning-rate", type=float, metavar="R", help="the highest one (default: 2e-3, with --supervised 1.5e-3)"
    )
    parser.add_argument(
        "--mask-ratio", type=float, metavar="R", help="share of the tokens hidden, with --data (default: 0.6)"
    )
    parser.add_argument(
        "--standardise",
        action="store_true",
        help="bring the features that the head reads to mean 0 and unit scale over these images, inside the last norms",
    )
    parser.add_argument(
        "--device", default="auto", metavar="D", help="where to compute, such as cpu or cuda:1 (default: the first GPU)"
    )
    parser.add_argument(
        "--mixed-precision",
        choices=("off", "bf16"),
        default="off",
        help="bf16 computes matrix products and convolutions in bfloat16, for GPUs (default: off)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--provenance", default="", help="what the images are, kept in the file")
    return parser


def run(args: argparse.Namespace) -> int:
    """Draw or read the images, train, and say what was written."""
    from monai_fedlora.api.backbone_pretraining import (
        Pretrained,
        PretrainedOnPhantoms,
        pretrain,
        pretrain_clip,
        pretrain_supervised,
    )
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.commands.progress import counting_bars

    common: dict[str, Any] = {"output": args.output, "size": args.size, "epochs": args.epochs, "seed": args.seed}
    common |= {"batch_size": args.batch_size, "provenance": args.provenance}
    common |= {"device": args.device, "mixed_precision": args.mixed_precision, **_given(args, "learning_rate")}
    with counting_bars("drawing pictures", "epochs") as (pictures, epochs):
        common["on_epoch"] = lambda epoch, loss: epochs(epoch, args.epochs, f"loss {loss:.4f}")
        own, ratio = _given(args, "phantoms", "views", "workers"), _given(args, "mask_ratio")
        if ratio and args.data is None:
            raise ConfigError("--mask-ratio is for --data, where tokens are hidden; leave it out")
        if own and not args.supervised:
            raise ConfigError("--phantoms, --views and --workers are for --supervised; leave them out")
        made: Pretrained
        if args.supervised:
            if args.style or args.standardise or args.cameras:
                raise ConfigError("--style, --standardise and --cameras are not for --supervised; leave them out")
            made = pretrain_supervised(start=args.start, on_resume=_tell_resumed, **common, **own)
        elif args.captioned is None:
            if args.cameras or args.start:
                raise ConfigError("--cameras and --start are not for --data; leave them out")
            made = pretrain(args.data, styles=args.style, standardise=args.standardise, **ratio, **common)
        else:
            if args.style or args.standardise:
                raise ConfigError("--style and --standardise are for --data; leave them out")
            cameras = args.cameras.split(",") if args.cameras else None
            made = pretrain_clip(args.captioned, cameras=cameras, start=args.start, on_picture=pictures, **common)
    open_console().print(f"{made.path}  SHA-256 {made.sha256}")
    if isinstance(made, PretrainedOnPhantoms):
        for name, value in made.measured.to_json().items():
            open_console().print(f"on phantoms not seen, {name}: {value}")
    return 0


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options that were given; those of the functions of the API have their defaults there."""
    found = {name: getattr(args, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _tell_resumed(epochs: int) -> None:
    from monai_fedlora.commands.console import open_console

    open_console().print(f"going on after epoch {epochs}, where this training was stopped")
