"""``monai-fedlora privacy``: a site's own gate, as a ``privacy.json`` that no job can remove."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("privacy", help="write a site's privacy.json from a job you have read and approved")
    parser.add_argument("job", type=Path, help="job folder whose manifest the site approves")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the site's local/ folder")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write ``privacy.json`` and the approved manifest beside it."""
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.federated.approval import Job, write_gate

    job = Job.read(args.job)
    path = write_gate(job, args.output)
    console = open_console()
    manifest = job.manifest
    up, down = manifest.up.nbytes, manifest.down.nbytes
    console.print(f"{path} lets exactly {len(manifest.entries)} tensors through ({up:,} bytes up, {down:,} down):")
    for key, entry in manifest.entries.items():
        console.print(f"  {key}  {entry}")
    return 0
