"""``monai-fedlora data phantom``: write made-up patients in the layout of a published dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_fedlora.errors import ConfigError, DataError

_LAYOUTS = ("acdc", "mnms")
_DEFAULT_VENDORS = {"acdc": "A", "mnms": "A,B,C,D"}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to those of ``data``."""
    text = "made-up patients in the layout of a published dataset, to try everything without real data"
    parser: argparse.ArgumentParser = subparsers.add_parser("phantom", help=text, description=text)
    parser.add_argument("--layout", choices=_LAYOUTS, default="acdc", help="default: acdc")
    parser.add_argument("--output", required=True, type=Path, metavar="O", help="new folder for the dataset")
    parser.add_argument("--patients", type=int, default=50, metavar="N", help="patients of all vendors (default: 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed gives other patients")
    parser.add_argument(
        "--vendors",
        metavar="A,B,...",
        help="scanner makers by their M&Ms letter: A Siemens, B Philips, C GE, D Canon (default: A for acdc, all four "
        "for mnms)",
    )
    parser.add_argument(
        "--frames", type=int, metavar="T", help="frames of a beat (default: 12 for mnms; 2, ED and ES, for acdc)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the dataset, all of it or nothing."""
    import os
    import shutil
    import tempfile
    from functools import partial
    from time import perf_counter

    from rich.console import Console
    from rich.progress import track

    from monai_fedlora.data.phantom import study
    from monai_fedlora.data.phantom.cohort import vendors_named

    start = perf_counter()
    frames = {"acdc": 2, "mnms": 12}[args.layout] if args.frames is None else args.frames
    if args.patients < 1 or frames < 2 or args.seed < 0:
        raise ConfigError("--patients needs 1 or more, --frames 2 or more, --seed 0 or more")
    vendors = vendors_named((args.vendors or _DEFAULT_VENDORS[args.layout]).split(","))
    output = Path(os.path.abspath(args.output))
    if output.exists():
        raise DataError(f"{output} exists already; name a new folder, or delete this one first")
    plan, write = {"acdc": (study.plan_acdc, study.write_acdc), "mnms": (study.plan_mnms, study.write_mnms)}[
        args.layout
    ]
    members = plan(args.patients, vendors, args.seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        write(staging, members, frames=frames, progress=partial(track, description="drawing hearts", transient=True))
        staging.chmod(0o755)
        os.rename(staging, output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    Console(highlight=False).print(
        f"{output} now has {args.patients} made-up patients ({perf_counter() - start:.1f} s).\n"
        f"Next: monai-fedlora data {args.layout} --source {output} --output PREPARED",
        markup=False,
        soft_wrap=True,
    )
    return 0
