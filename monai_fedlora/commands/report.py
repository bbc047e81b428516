"""``monai-fedlora report``: one page about a run, finished or not."""

from __future__ import annotations

import argparse
from pathlib import Path

PAGE_NAME = "report.html"


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "report",
        help="write one page about a run, finished or not",
        description="Write one HTML page that opens offline: sites and cases, learning curves, the worst site, "
        "calibration, confusion matrices, bytes, what was refused, and, from the models that lie there, how far shared "
        "and private adapters overlap.",
    )
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="workspace of simulate, or a site's own private folder"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the page (default: RUN/{PAGE_NAME})")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="also write the numbers as TensorBoard events")
    parser.add_argument(
        "--mlflow", metavar="URI", help="also write the numbers as an MLflow run (such as sqlite:///mlruns.db)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Read and write."""
    from monai_fedlora.errors import ConfigError
    from monai_fedlora.files import write_text
    from monai_fedlora.reporting.found_run import read_run
    from monai_fedlora.reporting.page import page
    from monai_fedlora.reporting.track import to_mlflow, to_tensorboard
    from monai_fedlora.tracker_names import MLFLOW, TENSORBOARD, check_trackers

    output = args.output or args.run_folder / PAGE_NAME
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder; give the file of the page")
    check_trackers([name for name, wanted in ((TENSORBOARD, args.tensorboard), (MLFLOW, args.mlflow)) if wanted])
    found = read_run(args.run_folder)
    write_text(output, page(found))
    print(f"report: {output}")
    if args.tensorboard:
        to_tensorboard(found.record, args.tensorboard)
        print(f"TensorBoard: {args.tensorboard}")
    if args.mlflow:
        to_mlflow(found.record, args.mlflow)
        print(f"MLflow: {args.mlflow}")
    return 0
