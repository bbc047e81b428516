"""Everything of a job that a site should know before it consents, and its consent to exactly that."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.catalogues import trusting
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.approval import GATE_NAME, Job, approve, kept_bits, withdraw
from monai_fedlora.federated.plan_budget import SETTINGS
from monai_fedlora.federated.site_policy import FILE_NAME, check_local, site_policy
from monai_fedlora.federated.training_settings import TRAINING_SETTINGS
from monai_fedlora.files import read_json
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.resources import bundle_path

_NUMBERS = (
    "each round the number of training cases, whether their images are synthetic or real, training loss, seconds and "
    "the metrics on the validation cases, in the end those on the test cases: "
)
_NUMBERS_UNDER_BUDGET = (
    "each round and in the end the number of patients that the plan declares and, at first, whether their images are "
    "synthetic or real; no loss, no metric, no time"
)
_OF_CLASSES = "balanced_accuracy, accuracy, sensitivity, specificity, auroc, mcc, ece, n, confusion_matrix"
_SHOWN = {
    *("experiment", "bundle", "method", "method_args", "sites", "classes", "rounds", "start_round", "local_epochs"),
    *("size", "backbone_sha256", "training", "plugins", "bundle_sha256", "versions"),
}
"""Entries of a plan that have a place of their own in the lines; all others are listed."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A job, and what a site has said to it.

    Attributes:
        experiment: the job's name.
        lines: everything of it that a site should know, by subject; more about the same has no subject.
        result: what was done.
    """

    experiment: str
    lines: tuple[tuple[str, str], ...]
    result: str


def decide(folder: Path, local: Path | None = None, *, withdrawn: bool = False) -> Decision:
    """Read a job, and approve it for a site or take that back.

    Args:
        folder: of the job, as it came.
        local: the site's ``local/`` folder; None changes nothing.
        withdrawn: take an approval back.

    Raises:
        ConfigError: the job cannot be read, its bundle is not installed here, or there is no such folder.
        PolicyError: see `monai_fedlora.federated.approval.approve`.
    """
    if withdrawn and local is None:
        raise ConfigError("give --output DIR, the site's local/ folder, to withdraw an approval there")
    policy = site_policy(local)
    with trusting(policy.plugins, source=policy.source):
        job = Job.read(folder)
    name = job.plan.experiment
    if withdrawn and local is not None:
        withdraw(job, local)
        return Decision(experiment=name, lines=(), result=f"withdrawn from {local / FILE_NAME}: {job.sha256}")
    found = Decision(experiment=name, lines=tuple(job_lines(job, local)), result="")
    if local is None:
        said = "to approve it: monai-fedlora approve JOB --output DIR, the site's local/ folder"
    else:
        check_local(local)
        others = "nothing else trains here" if approve(job, local).require_approval else "but others train as well"
        said = f"approved in {local / FILE_NAME}; {others}"
    return dataclasses.replace(found, result=said)


def job_lines(job: Job, local: Path | None = None) -> Iterator[tuple[str, str]]:
    """Everything of a job that a site should know, as subject and text.

    Args:
        job: the job.
        local: the site's ``local/`` folder, whose own gate says how what leaves is rounded; None for an unknown one.

    Raises:
        ConfigError: the bundle is not installed here.
    """
    plan, manifest = job.plan, job.manifest
    method = plan.build_method()
    last = plan.start_round + plan.rounds
    up, down = manifest.up, manifest.down
    yield "trains", f"{plan.method}: {method.summary}"
    for name, version in plan.plugins.items():
        yield "code of", f"{name} {version}, a package that is no part of this one and computes with the patients' data"
    pinned = f"as the job was made, SHA-256 {plan.bundle_sha256}" if plan.bundle_sha256 else "whatever it computes here"
    yield "", f"bundle {plan.bundle} ({pinned}), {plan.task_of.named} {', '.join(plan.classes)}"
    named = ", ".join(f"{name} {version}" for name, version in sorted(plan.versions.items()))
    yield "", f"with {named}, and no other versions" if named else "with any versions of the packages, which are told"
    yield "", f"backbone {plan.size}, SHA-256 {plan.backbone_sha256}"
    if settings := dataclasses.asdict(method):
        yield "", f"method: {_settings(settings)}"
    yield "", f"training: {_settings(_training(job))}"
    yield "", f"and: {_settings({key: value for key, value in plan.to_json().items() if key not in _SHOWN})}"
    yield "how often", f"{plan.rounds} rounds ({plan.start_round} to {last - 1}) of {plan.local_epochs} local epochs,"
    if plan.epochs_after:
        yield "", f"then {plan.epochs_after} epochs of the site's own model, of which no tensor leaves,"
    yield "", "then an evaluation; a round that failed may be asked for again"
    yield "sends", f"{len(up.entries)} tensors, {up.nbytes:,} bytes a round, {up.nbytes * plan.rounds:,} in all:"
    yield "", _groups(up.entries)
    yield "", _rounding(local)
    if plan.privacy is None:
        yield "", _NUMBERS + (", ".join([*plan.form.numbers, "n"]) if not plan.form.classes else _OF_CLASSES)
    else:
        yield "", _NUMBERS_UNDER_BUDGET
    yield "receives", f"{len(down.entries)} tensors, {down.nbytes:,} bytes a round"
    yield "to whom", "the federation's server and whoever runs it, who sees each site's tensors and numbers;"
    yield "", f"the combination of all sites' tensors goes to {', '.join(plan.sites)}"
    if (budget := plan.privacy) is None:
        yield "protected by", "no formal guarantee: no differential privacy, and the server sees tensors in the clear"
    else:
        yield (
            "protected by",
            f"differential privacy of what leaves, for each patient: epsilon {budget.epsilon:g}, delta "
            f"{budget.delta:g}, over all rounds{_spare(budget)}, by the site's own noise; the server sees the noised "
            "tensors",
        )
        yield "", "outside of it: the site's own model, trained without noise, and whatever is exported from it"
    yield "", "both ends refuse what is not listed here; TLS on the way is that of a provisioned federation"
    if foreign := job.foreign():
        yield "BRINGS CODE", f"{', '.join(foreign)}: nothing above need be true of it, and it cannot be approved"
    yield "this job", job.sha256


def _rounding(local: Path | None) -> str:
    """How many bits of what leaves the site's own gate keeps, which no plan says."""
    if local is None:
        return f"with all bits of their values, unless {GATE_NAME} in the site's local/ folder has kept_bits"
    if (bits := kept_bits(local)) is None:
        return f"with all bits of their values (kept_bits in {local / GATE_NAME} would round them)"
    return f"rounded by chance to {bits} bits of each value's mantissa, as kept_bits in {local / GATE_NAME} says"


def _spare(budget: PrivacySettings) -> str:
    return f" and {budget.spare_rounds} that are trained again" if budget.spare_rounds else ""


def _training(job: Job) -> dict[str, Any]:
    """The settings of training: the installed bundle's, with the job's own in their place."""
    bundle = read_json(bundle_path(job.plan.bundle) / "configs" / "train.json")
    own = {} if job.plan.privacy is None else SETTINGS
    return {key: bundle[key] for key in TRAINING_SETTINGS if key in bundle} | {**own, **job.plan.training}


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))


def _groups(entries: Iterable[str]) -> str:
    """Names of tensors with the numbers of blocks left out, each once, and how many there are of it."""
    names: dict[str, int] = {}
    for key in entries:
        name = re.sub(r"\.\d+(?=\.|$)", ".*", key)
        names[name] = names.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in names.items()) or "no tensors"
