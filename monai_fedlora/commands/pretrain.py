"""``monai-fedlora pretrain``: pre-train a backbone on prepared sites without labels, or on pictures with captions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.commands import pretrain_captioned
from monai_fedlora.errors import ConfigError, DataError


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "pretrain", help="pre-train a backbone: masked auto-encoding without labels, or a CLIP on generated pictures"
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "--data",
        type=Path,
        action="append",
        metavar="D",
        help="folder of prepared sites; may be repeated",
    )
    pretrain_captioned.add_arguments(parser, images)
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
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--mask-ratio", type=float, default=0.6, help="share of the tokens hidden (default: 0.6)")
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
    """Read all splits of all sites, train, write."""
    if args.captioned is not None:
        return pretrain_captioned.run(args)
    if args.cameras or args.start:
        raise ConfigError("--cameras and --start are for --captioned; leave them out")
    from operator import itemgetter

    from monai.data import Dataset
    from torch.utils.data import ConcatDataset

    from monai_fedlora.commands.console import open_console
    from monai_fedlora.commands.progress import epochs_bar
    from monai_fedlora.engines.config import augmentation, pick_device, preprocessing
    from monai_fedlora.engines.dataset import CaseDataset
    from monai_fedlora.engines.memory import Memory, using
    from monai_fedlora.files import sha256
    from monai_fedlora.networks.catalogue import architecture
    from monai_fedlora.networks.pretraining import pretrain

    modality = architecture(args.size).modality
    parts, plain = [], []
    with using(Memory()):
        for folder, style in zip(args.data, _styles(args.style, len(args.data)), strict=True):
            items = _items(folder, modality=modality, size=args.size)
            prepared = preprocessing(size=args.size, style=style)
            random = augmentation(size=args.size, style=style)
            parts.append(CaseDataset(items, prepared, augmentation=random, seed=args.seed, progress=True))
            if args.standardise:
                plain.append(CaseDataset(items, prepared))
    with epochs_bar(args.epochs, parts) as on_epoch:
        pretrain(
            Dataset(ConcatDataset(parts), transform=itemgetter("image")),  # type: ignore[arg-type]
            size=args.size,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.learning_rate,
            mask_ratio=args.mask_ratio,
            seed=args.seed,
            output=args.output,
            device=pick_device(args.device),
            bf16=args.mixed_precision == "bf16",
            standardise_on=(case["image"] for part in plain for case in part) if plain else None,  # type: ignore[attr-defined]
            provenance=args.provenance,
            on_epoch=on_epoch,
        )
    open_console().print(f"{args.output}  SHA-256 {sha256(args.output)}", soft_wrap=True)
    return 0


def _styles(styles: Sequence[str], folders: int) -> Sequence[str | None]:
    """One style per folder; None for all where none is given."""
    if len(styles) not in (0, 1, folders):
        raise ConfigError(f"--style was given {len(styles)} times for {folders} --data; give it once, or once for each")
    return styles if len(styles) == folders else [styles[0] if styles else None] * folders


def _items(folder: Path, *, modality: str, size: str) -> list[dict[str, Any]]:
    """The cases of all splits of all prepared sites in a folder."""
    from monai_fedlora.data.datalist import FILE_NAME, SPLITS, load_datalist

    datalists = [load_datalist(path) for path in sorted(folder.glob(f"*/{FILE_NAME}"))]
    if not datalists:
        raise DataError(f"{folder} holds no prepared site (<site>/{FILE_NAME}); run monai-fedlora data first")
    if wrong := [datalist for datalist in datalists if datalist.modality != modality]:
        raise ConfigError(
            f"site {wrong[0].site} in {folder} holds cases of kind {wrong[0].modality!r}, but {size} takes {modality!r}"
        )
    return [item for datalist in datalists for split in SPLITS for item in datalist.items(split)]
