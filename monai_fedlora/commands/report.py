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
    """Write, and say where."""
    from monai_fedlora.api.run_report import report

    output = args.output or args.run_folder / PAGE_NAME
    report(args.run_folder, output=output, tensorboard=args.tensorboard, mlflow=args.mlflow)
    print(f"report: {output}")
    if args.tensorboard:
        print(f"TensorBoard: {args.tensorboard}")
    if args.mlflow:
        print(f"MLflow: {args.mlflow}")
    return 0
