"""``monai-fedlora pretrain``: pre-train a backbone without labels on prepared sites."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("pretrain", help="pre-train a backbone without labels (masked auto-encoding)")
    parser.add_argument("--data", required=True, type=Path, metavar="D", help="folder of prepared sites")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="safetensors file to write")
    parser.add_argument("--size", default="small", help="backbone size (default: small)")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--mask-ratio", type=float, default=0.6, help="share of the tokens hidden (default: 0.6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--provenance", default="", help="what the images are, kept in the file")
    return parser


def run(args: argparse.Namespace) -> int:
    """Read all splits of all sites, train, write."""
    from operator import itemgetter

    from monai.data import Dataset
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from monai_fedlora.data.datalist import FILE_NAME, load_datalist
    from monai_fedlora.engines.dataset import CaseDataset
    from monai_fedlora.errors import ConfigError, DataError
    from monai_fedlora.files import sha256
    from monai_fedlora.networks.cinema import SIZES
    from monai_fedlora.networks.pretrain import pretrain
    from monai_fedlora.transforms.cine import cine_augmentation, cine_preprocessing

    if args.size not in SIZES:
        raise ConfigError(f"unknown size {args.size!r}; choose one of {', '.join(SIZES)}")
    size = SIZES[args.size]
    lists = sorted(args.data.glob(f"*/{FILE_NAME}"))
    items = [
        item
        for path in lists
        for split in ("training", "validation", "test")
        for item in load_datalist(path).items(split)
    ]
    if not items:
        raise DataError(f"{args.data} holds no prepared site (<site>/{FILE_NAME}); run monai-fedlora data first")
    cases = CaseDataset(
        items,
        cine_preprocessing(image_size=size.image_size, spacing=size.spacing),
        augmentation=cine_augmentation(image_size=size.image_size, spacing=size.spacing),
        seed=args.seed,
        progress=True,
    )
    with Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[loss]}"),
    ) as bar:
        task = bar.add_task("epochs", total=args.epochs, loss="")

        def on_epoch(epoch: int, loss: float) -> None:
            cases.set_epoch(epoch + 1)
            bar.update(task, completed=epoch, loss=f"loss {loss:.4f}")

        pretrain(
            Dataset(cases, transform=itemgetter("image")),  # type: ignore[arg-type]
            size=args.size,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.learning_rate,
            mask_ratio=args.mask_ratio,
            seed=args.seed,
            output=args.output,
            provenance=args.provenance,
            on_epoch=on_epoch,
        )
    Console().print(f"{args.output}  SHA-256 {sha256(args.output)}", soft_wrap=True)
    return 0
