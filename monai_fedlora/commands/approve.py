"""``monai-fedlora approve``: what a job would train and send, on one screen, and a site's consent to exactly that."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from monai_fedlora.federated.approval import Job

_NUMBERS = (
    "each round the number of training cases, whether their images are synthetic or real, training loss, seconds and "
    "the metrics on the validation cases, in the end those on the test cases: balanced_accuracy, accuracy, "
    "sensitivity, specificity, auroc, mcc, ece, n, confusion_matrix"
)
_SHOWN = {
    *("experiment", "bundle", "method", "method_args", "sites", "classes", "rounds", "start_round", "local_epochs"),
    *("size", "backbone_sha256", "training", "plugins"),
}
"""Entries of a plan that have a place of their own on the screen; all others are listed."""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("approve", help="show what a job would train and send, and approve it for a site")
    parser.add_argument("job", type=Path, help="job folder, as it came")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the site's local/ folder, to approve the job there; else it is shown",
    )
    parser.add_argument("--withdraw", action="store_true", help="with --output: take the approval back")
    return parser


def run(args: argparse.Namespace) -> int:
    """Show the job, and write the approval where it was asked for."""
    from monai_fedlora.catalogues import trusting
    from monai_fedlora.commands.console import open_console
    from monai_fedlora.errors import ConfigError
    from monai_fedlora.federated.approval import Job, approve, withdraw
    from monai_fedlora.federated.site_policy import FILE_NAME, site_policy

    if args.withdraw and args.output is None:
        raise ConfigError("give --output DIR, the site's local/ folder, to withdraw an approval there")
    policy, console = site_policy(args.output), open_console()
    with trusting(policy.plugins, source=policy.source):
        job = Job.read(args.job)
    if args.withdraw:
        withdraw(job, args.output)
        console.print(f"withdrawn from {args.output / FILE_NAME}: {job.sha256}", soft_wrap=True)
        return 0
    console.print(job_table(job))
    if args.output is None:
        console.print("to approve it: monai-fedlora approve JOB --output DIR, the site's local/ folder", soft_wrap=True)
        return 0
    policy = approve(job, args.output)
    only = "nothing else trains here" if policy.require_approval else "but the site's policy lets others train as well"
    console.print(f"approved in {args.output / FILE_NAME}; {only}", soft_wrap=True)
    return 0


def job_table(job: Job) -> Table:
    """Everything of a job that a site should know, a line each.

    Raises:
        ConfigError: the bundle is not installed here.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{job.plan.experiment}: a job for this site", box=None, show_header=False, title_justify="left"
    )
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for what, said in _lines(job):
        table.add_row(what, Text(said))
    return table


def _lines(job: Job) -> Iterator[tuple[str, str]]:
    plan, manifest = job.plan, job.manifest
    method = plan.build_method()
    last = plan.start_round + plan.rounds
    up, down = manifest.up, manifest.down
    yield "trains", f"{plan.method}: {method.summary}"
    for name, version in plan.plugins.items():
        yield "code of", f"{name} {version}, a package that is no part of this one and computes with the patients' data"
    yield "", f"bundle {plan.bundle}, classes {', '.join(plan.classes)}"
    yield "", f"backbone {plan.size}, SHA-256 {plan.backbone_sha256}"
    if settings := dataclasses.asdict(method):
        yield "", f"method: {_settings(settings)}"
    yield "", f"training: {_settings(_training(job))}"
    yield "", f"and: {_settings({key: value for key, value in plan.to_json().items() if key not in _SHOWN})}"
    yield "how often", f"{plan.rounds} rounds ({plan.start_round} to {last - 1}) of {plan.local_epochs} local epochs,"
    yield "", "then an evaluation; a round that failed may be asked for again"
    yield "sends", f"{len(up.entries)} tensors, {up.nbytes:,} bytes a round, {up.nbytes * plan.rounds:,} in all:"
    yield "", _groups(up.entries)
    yield "", _NUMBERS
    yield "receives", f"{len(down.entries)} tensors, {down.nbytes:,} bytes a round"
    yield "to whom", "the federation's server and whoever runs it, who sees each site's tensors and numbers;"
    yield "", f"the combination of all sites' tensors goes to {', '.join(plan.sites)}"
    yield (
        "protected by",
        "no formal guarantee: no differential privacy, and the server sees tensors in the clear",
    )
    yield "", "both ends refuse what is not listed here; TLS on the way is that of a provisioned federation"
    if foreign := job.foreign():
        yield "BRINGS CODE", f"{', '.join(foreign)}: nothing above need be true of it, and it cannot be approved"
    yield "this job", job.sha256


def _training(job: Job) -> dict[str, Any]:
    """The settings of training: the installed bundle's, with the job's own in their place."""
    from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
    from monai_fedlora.files import read_json
    from monai_fedlora.resources import bundle_path

    bundle = read_json(bundle_path(job.plan.bundle) / "configs" / "train.json")
    return {key: bundle[key] for key in TRAINING_SETTINGS if key in bundle} | dict(job.plan.training)


def _settings(values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))


def _groups(entries: Any) -> str:
    """Names of tensors with the numbers of blocks left out, each once, and how many there are of it."""
    names: dict[str, int] = {}
    for key in entries:
        name = re.sub(r"\.\d+(?=\.|$)", ".*", key)
        names[name] = names.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in names.items()) or "no tensors"
