"""``monai-fedlora pretrain --captioned``: train a small CLIP on generated photographs and what there is to say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError

_SIDE = 120  # shorter side of a picture, pixels
_SKIN = 0.4  # share of skin lesions among the pictures; the others are retinas


def add_arguments(parser: argparse.ArgumentParser, images: argparse._MutuallyExclusiveGroup) -> None:
    """Add the options of this way to pre-train.

    Args:
        parser: of the command.
        images: the options that say what is trained on.
    """
    images.add_argument(
        "--captioned",
        type=int,
        metavar="N",
        help="train a CLIP on N generated skin lesions and retinas with captions; tokens go beside the output",
    )
    parser.add_argument("--cameras", metavar="A,B,...", help="that take generated pictures, by letter (default: all)")
    parser.add_argument(
        "--start", metavar="FILE", help="weights of vit_demo from which the image tower starts (default: random ones)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw, train, write."""
    import tempfile
    from operator import itemgetter

    from monai.data import Dataset
    from torch.utils.data import ConcatDataset

    from monai_fedlora.commands.console import open_console
    from monai_fedlora.commands.progress import epochs_bar
    from monai_fedlora.data.photo_phantom.captions import write_caption
    from monai_fedlora.engines.config import augmentation, pick_device, preprocessing
    from monai_fedlora.engines.dataset import CaseDataset
    from monai_fedlora.files import sha256
    from monai_fedlora.networks.anchors import text_shape
    from monai_fedlora.networks.contrast import pretrain_clip

    text_shape(args.size)
    if args.style or args.standardise:
        raise ConfigError("--style and --standardise are for --data; leave them out")
    skin = round(args.captioned * _SKIN)
    if min(skin, args.captioned - skin) < 1:
        raise ConfigError("--captioned needs 2 pictures or more")
    codes = args.cameras.split(",") if args.cameras else None
    start = _tower(args.start) if args.start else None
    facts: list[Any] = []
    parts = []
    with tempfile.TemporaryDirectory(prefix="pretrain_captioned_") as folder:
        for kind, count in (("dermoscopy", skin), ("fundus", args.captioned - skin)):
            items, about = _draw(Path(folder), kind, count, codes, args.seed)
            random = augmentation(size=args.size, style=kind)
            prepared = preprocessing(size=args.size, style=kind)
            parts.append(CaseDataset(items, prepared, augmentation=random, seed=args.seed, progress=True))
            facts += about
    with epochs_bar(args.epochs, parts) as on_epoch:
        pretrain_clip(
            Dataset(ConcatDataset(parts), transform=itemgetter("image")),  # type: ignore[arg-type]
            statements=[one.statements for one in facts],
            caption=lambda number, rng: write_caption(facts[number], rng),
            size=args.size,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.learning_rate,
            seed=args.seed,
            output=args.output,
            device=pick_device(args.device),
            bf16=args.mixed_precision == "bf16",
            start=start,
            provenance=args.provenance,
            on_epoch=on_epoch,
        )
    open_console().print(f"{args.output}  SHA-256 {sha256(args.output)}", soft_wrap=True)
    return 0


def _tower(source: str) -> Any:
    """The demonstration's vision transformer with these weights."""
    from monai_fedlora.networks.catalogue import build_backbone
    from monai_fedlora.networks.weights import load_backbone

    network = build_backbone("vit_demo", out_chans=1)
    load_backbone(network, source)
    return network


def _draw(
    folder: Path, name: str, count: int, codes: list[str] | None, seed: int
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Write pictures of one kind and say what they show; the classes of its demonstration are drawn most often."""
    from rich.progress import track

    from monai_fedlora.data.phantom.cohort import name_seed
    from monai_fedlora.data.photo_phantom.captions import facts_of
    from monai_fedlora.data.photo_phantom.optics import encode
    from monai_fedlora.data.photo_phantom.photo_kinds import KINDS

    kind = KINDS[name]
    codes = codes or [*kind.cameras]
    if unknown := [code for code in codes if code not in kind.cameras]:
        raise ConfigError(f"there is no camera {unknown[0]!r}; choose from {', '.join(kind.cameras)}")
    groups = [*kind.demo] * 3 + [*kind.classes]
    items, facts = [], []
    for number in track(range(count), description=f"drawing {name}", transient=True):
        camera = kind.cameras[codes[number // len(groups) % len(codes)]]
        group = groups[number % len(groups)]
        picture = kind.make(group, camera, (seed, name_seed(name), number), size=_SIDE)
        path = folder / f"{name}{number}.jpg"
        path.write_bytes(encode(picture.pixels, camera.optics, ".jpg"))
        items.append({"image": str(path)})
        facts.append(facts_of(group, camera, picture))
    return items, facts
