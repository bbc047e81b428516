"""``monai-fedlora data phantom``: write made-up patients in the layout of a published dataset."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to those of ``data``."""
    from monai_fedlora.api.phantom_data import LAYOUTS, SIDE

    text = "made-up patients in the layout of a published dataset, to try everything without real data"
    parser: argparse.ArgumentParser = subparsers.add_parser("phantom", help=text, description=text)
    parser.add_argument("--layout", choices=tuple(LAYOUTS), default="acdc", help="default: acdc")
    parser.add_argument("--output", required=True, type=Path, metavar="O", help="new folder for the dataset")
    parser.add_argument(
        "--patients",
        type=int,
        metavar="N",
        help="patients, or images of fed_isic2019 and feddrg, of all vendors (default: 50 patients or 600 images)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed gives other patients")
    parser.add_argument(
        "--vendors",
        metavar="A,B,...",
        help="scanner makers by their M&Ms letter: A Siemens, B Philips, C GE, D Canon; cameras of fed_isic2019 and "
        "feddrg: A to F (default: A for acdc, all for the others)",
    )
    parser.add_argument(
        "--frames", type=int, metavar="T", help="frames of a beat (default: 12 for mnms; 2, ED and ES, for acdc)"
    )
    parser.add_argument(
        "--orientation",
        choices=("known", "placeholder"),
        help="whether the affines of cine studies tell how the patients lie (default: known); placeholder for the "
        "positive diagonal that published collections hold, ACDC for one",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help=f"shorter side of the images of fed_isic2019 and feddrg (default: {SIDE})",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the dataset, all of it or nothing."""
    from time import perf_counter

    from monai_fedlora.api.phantom_data import LAYOUTS, phantom
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.commands.progress import counting_bars

    start, layout = perf_counter(), LAYOUTS[args.layout]
    with counting_bars(f"drawing {layout.noun}") as (bar,):
        output = phantom(
            args.layout,
            output=args.output,
            patients=args.patients,
            seed=args.seed,
            vendors=args.vendors.split(",") if args.vendors else None,
            frames=args.frames,
            orientation=args.orientation,
            size=args.size,
            on_subject=bar,
        )
    subjects = layout.subjects if args.patients is None else args.patients
    open_console().print(
        f"{output} now has {subjects} made-up {layout.noun} ({perf_counter() - start:.1f} s).\n"
        f"Next: monai-fedlora data {args.layout} --source {output} --output PREPARED"
    )
    return 0
