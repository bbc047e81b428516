"""``monai-fedlora data phantom``: write made-up patients in the layout of a published dataset."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What a layout has unless told otherwise: its machines, how many subjects, and what they are called."""

    vendors: str
    subjects: int
    noun: str
    photographs: bool = False


_LAYOUTS = {
    "acdc": _Layout(vendors="A", subjects=50, noun="patients"),
    "mnms": _Layout(vendors="A,B,C,D", subjects=50, noun="patients"),
    "fed_isic2019": _Layout(vendors="A,B,C,D,E,F", subjects=600, noun="images", photographs=True),
    "feddrg": _Layout(vendors="A,B,C,D,E,F", subjects=600, noun="images", photographs=True),
}
_FRAMES = {"acdc": 2, "mnms": 12}
_SIZE = 120


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to those of ``data``."""
    text = "made-up patients in the layout of a published dataset, to try everything without real data"
    parser: argparse.ArgumentParser = subparsers.add_parser("phantom", help=text, description=text)
    parser.add_argument("--layout", choices=tuple(_LAYOUTS), default="acdc", help="default: acdc")
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
        help=f"shorter side of the images of fed_isic2019 and feddrg (default: {_SIZE})",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the dataset, all of it or nothing."""
    import os
    import shutil
    import tempfile
    from time import perf_counter

    from monai_fedlora.commands.console import open_console
    from monai_fedlora.files import make_folder

    start = perf_counter()
    layout = _LAYOUTS[args.layout]
    subjects = layout.subjects if args.patients is None else args.patients
    if subjects < 1 or args.seed < 0:
        raise ConfigError("--patients needs 1 or more, --seed 0 or more")
    codes = (args.vendors or layout.vendors).split(",")
    writer = (_photographs if layout.photographs else _cine_studies)(args, subjects, codes)
    output = Path(os.path.abspath(args.output))
    if output.exists():
        raise DataError(f"{output} exists already; name a new folder, or delete this one first")
    make_folder(output.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        writer(staging)
        os.rename(staging, output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    open_console(highlight=False).print(
        f"{output} now has {subjects} made-up {layout.noun} ({perf_counter() - start:.1f} s).\n"
        f"Next: monai-fedlora data {args.layout} --source {output} --output PREPARED",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _cine_studies(args: argparse.Namespace, patients: int, codes: list[str]) -> Callable[[Path], None]:
    """Return what writes cine studies into a folder."""
    from functools import partial

    from rich.progress import track

    from monai_fedlora.data.phantom import phantom_study
    from monai_fedlora.data.phantom.cohort import machines_named
    from monai_fedlora.data.phantom.vendors import VENDORS

    frames = _FRAMES[args.layout] if args.frames is None else args.frames
    if frames < 2:
        raise ConfigError("--frames needs 2 or more")
    if args.size is not None:
        raise ConfigError(f"--size is for photographs; the vendors decide the pixels of {args.layout}")
    plan, write = {
        "acdc": (phantom_study.plan_acdc, phantom_study.write_acdc),
        "mnms": (phantom_study.plan_mnms, phantom_study.write_mnms),
    }[args.layout]
    members = plan(patients, machines_named(VENDORS, codes, word="vendor"), args.seed)
    progress = partial(track, description="drawing cine studies", transient=True)
    oriented = args.orientation != "placeholder"
    return partial(write, members=members, frames=frames, oriented=oriented, progress=progress)


def _photographs(args: argparse.Namespace, images: int, codes: list[str]) -> Callable[[Path], None]:
    """Return what writes a collection of photographs into a folder."""
    from functools import partial

    from rich.progress import track

    from monai_fedlora.data.phantom.cohort import machines_named
    from monai_fedlora.data.photo_phantom import photo_layouts
    from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
    from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS

    size = _SIZE if args.size is None else args.size
    if size < 32:
        raise ConfigError("--size needs 32 or more")
    if args.frames is not None:
        raise ConfigError(f"--frames is for cine studies; {args.layout} has photographs")
    if args.orientation is not None:
        raise ConfigError(f"--orientation is for cine studies; {args.layout} has photographs")
    if args.layout == "fed_isic2019":
        cameras = machines_named(DERMATOSCOPES, codes, word="camera")
        write = partial(
            photo_layouts.write_fed_isic2019, members=photo_layouts.plan_fed_isic2019(images, cameras, args.seed)
        )
        what = "drawing lesions"
    else:
        write = partial(
            photo_layouts.write_feddrg,
            members=photo_layouts.plan_feddrg(images, machines_named(FUNDUS_CAMERAS, codes, word="camera"), args.seed),
        )
        what = "drawing retinas"
    return partial(write, size=size, progress=partial(track, description=what, transient=True))
