"""``monai-fedlora export``: turn a finished run into a model that others can use."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("export", help="make a bundle or PEFT folders from a finished run")
    parser.add_argument(
        "--run",
        dest="source",  # args.run is the command itself
        required=True,
        type=Path,
        metavar="W",
        help="a run's workspace, or a site's private folder",
    )
    parser.add_argument(
        "--site", required=True, help="whose personal model; 'shared' for the shared part alone, for a new hospital"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="B", help="folder to create")
    parser.add_argument(
        "--backbone", metavar="FILE", help="backbone file (default: MONAI_FEDLORA_BACKBONE, then the demo weights)"
    )
    parser.add_argument(
        "--format",
        choices=("bundle", "peft"),
        default="bundle",
        help="a MONAI bundle that runs with MONAI alone (default), or the adapters as PEFT folders",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written, how good it is and how to run it."""
    from rich.console import Console
    from rich.markup import escape

    from monai_fedlora.export.bundle import export_bundle
    from monai_fedlora.export.peft_folders import export_peft

    export = export_bundle if args.format == "bundle" else export_peft
    exported = export(run=args.source, site=args.site, output=args.output, backbone=args.backbone)
    console = Console()
    console.print(f"wrote {escape(str(exported.folder))}", soft_wrap=True, highlight=False)
    for path in sorted(path for path in exported.folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(exported.folder))
        console.print(f"  {escape(name):40} {path.stat().st_size:>13,} bytes", highlight=False)
    if exported.metadata["eval_metrics"]["test"]:
        console.print(metrics_table(exported.metadata))
    else:
        console.print("no test metrics were recorded for this model")
    console.print("to use it (for research only, not for clinical use):\n")
    console.print(escape(exported.usage), soft_wrap=True, highlight=False)
    return 0


def metrics_table(metadata: Mapping[str, Any]) -> Any:
    """The test metrics with their intervals, one column per view of the model."""
    from rich.table import Table

    from monai_fedlora.export.card import VIEWS, format_metric
    from monai_fedlora.export.metadata import headline

    views = headline(metadata)
    cases = next(iter(metadata["eval_metrics"]["test"].values())).get("n", "?")
    table = Table(title=f"test split, {cases} cases (95 % intervals)")
    table.add_column("metric")
    for view in views:
        table.add_column(VIEWS[view], justify="right")
    for name in dict.fromkeys(name for metrics in views.values() for name in metrics):
        table.add_row(name.replace("_", " "), *(format_metric(metrics.get(name)) for metrics in views.values()))
    return table
