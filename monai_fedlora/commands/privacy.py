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
    from rich.console import Console

    from monai_fedlora.errors import ConfigError
    from monai_fedlora.federated.plan import Plan
    from monai_fedlora.files import write_json
    from monai_fedlora.scope import Manifest

    config = args.job / "app" / "config"
    manifest, plan = Manifest.load(config / "manifest.json"), Plan.load(config / "plan.json")
    approved = (args.output / f"approved_manifest_{plan.experiment}.json").resolve()
    policy = args.output / "privacy.json"
    if policy.exists():
        raise ConfigError(f"{policy} exists; merge by hand, or move it away first")
    write_json(approved, manifest.to_json())
    gate = [
        {
            "path": "monai_fedlora.federated.filters.SharedOnly",
            "args": {"manifest": str(approved), "classes": len(plan.classes)},
        }
    ]
    scope = {
        "name": "monai-fedlora",
        "properties": {},
        "task_data_filters": gate,
        "task_result_filters": gate,
    }
    write_json(policy, {"scopes": [scope], "default_scope": "monai-fedlora"})
    console = Console()
    up, down = manifest.up.nbytes, manifest.down.nbytes
    console.print(f"{policy} lets exactly {len(manifest.entries)} tensors through ({up:,} bytes up, {down:,} down):")
    for key, entry in manifest.entries.items():
        console.print(f"  {key}  {entry}", soft_wrap=True)
    return 0
