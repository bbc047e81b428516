"""What a site does with a job that it has read: approve it, in its own ``local/`` folder, or take that back."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, PolicyError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_policy import FILE_NAME, Approval, Policy, check_local, job_hash
from monai_fedlora.files import read_json, write_json
from monai_fedlora.scope import Manifest
from monai_fedlora.tasks.classification import CLASSIFICATION

GATE_NAME = "privacy.json"
_SCOPE = "monai-fedlora"
_OURS = "monai_fedlora.federated."
_NOTE = "README.md"


@dataclass(frozen=True)
class Job:
    """What a job folder asks of a site."""

    folder: Path
    plan: Plan
    manifest: Manifest

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Read a job folder.

        Raises:
            ConfigError, PrivacyError: plan or manifest cannot be read; the message names the file.
        """
        config = folder / "app" / "config"
        manifest = Manifest.load(config / "manifest.json")
        return cls(folder, Plan.load(config / "plan.json"), manifest)

    @property
    def sha256(self) -> str:
        """What an approval of it holds."""
        return job_hash(self.plan, self.manifest)

    def foreign(self) -> list[str]:
        """What it would bring into a site that plan and manifest do not tell: code, and classes of other packages.

        Raises:
            ConfigError: the clients' configuration cannot be read.
        """
        brought = [path for path in sorted(self.folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
        named = [str(path.relative_to(self.folder)) for path in brought if _may_be_code(path, self.folder)]
        found = [path for path in named if path != f"app/custom/{_NOTE}"]
        client = self.folder / "app" / "config" / "config_fed_client.json"
        return found + [
            f"{name} in {client.name}" for name in _classes(read_json(client)) if not name.startswith(_OURS)
        ]


def _may_be_code(path: Path, job: Path) -> bool:
    """Whether a file of a job lies where NVFlare imports code from, or in another app, which sites may get."""
    first, *below = path.relative_to(job).parts
    return path.is_symlink() or (bool(below) and first != "app") or below[:1] == ["custom"]


def _classes(value: Any) -> list[str]:
    """Names of the classes that a configuration of NVFlare's builds."""
    if isinstance(value, dict):
        own = [str(value[key]) for key in ("path", "class_path", "name") if key in value and value[key] is not None]
        return own + [name for part in value.values() for name in _classes(part)]
    return [name for part in value for name in _classes(part)] if isinstance(value, list) else []


def approve(job: Job, local: Path, *, today: datetime.date | None = None) -> Policy:
    """Write that the site has read a job and lets it train.

    ``policy.json`` gets an entry; where there is none, it is made, with our limits and ``require_approval``. Where
    there is no ``privacy.json``, it is made as well, so that no other tensors than the job's pass.

    Args:
        job: the job.
        local: the site's ``local/`` folder.
        today: the date of the approval; None for now.

    Returns:
        The policy as it is now.

    Raises:
        PolicyError: the policy cannot be read, or does not allow the job; the job brings code; ``privacy.json`` blocks
            the job's tensors.
    """
    if foreign := job.foreign():
        raise PolicyError(
            f"{job.folder} brings what no plan tells ({', '.join(foreign)}), and code could do anything; read it, and "
            "ask for the job without it. Nothing was approved"
        )
    path = local / FILE_NAME
    policy = Policy.load(path) if os.path.lexists(path) else Policy(require_approval=True)
    policy.check_plan(job.plan)
    if blocked := _blocked_by_gate(job, local):
        raise PolicyError(f"{blocked}; merge by hand, or move it away first. Nothing was approved")
    if job.sha256 not in {approval.sha256 for approval in policy.approved}:
        date = (today or datetime.date.today()).isoformat()
        entry = Approval(sha256=job.sha256, experiment=job.plan.experiment, date=date)
        policy = dataclasses.replace(policy, approved=(*policy.approved, entry))
    if not os.path.lexists(local / GATE_NAME):
        write_gate(job, local)
    policy.save(path)
    return policy


def withdraw(job: Job, local: Path) -> Policy:
    """Take an approval back; a run of the job ends at its next message.

    Raises:
        ConfigError: it was not approved here.
        PolicyError: the policy cannot be read.
    """
    path = local / FILE_NAME
    if not os.path.lexists(path):
        raise ConfigError(f"{path} does not exist: nothing was approved there; check --output")
    policy = Policy.load(path)
    kept = tuple(approval for approval in policy.approved if approval.sha256 != job.sha256)
    if len(kept) == len(policy.approved):
        raise ConfigError(
            f"{path} holds no approval of this job of {job.plan.experiment}; another one of that name differs from it. "
            "Remove the entry by hand if the folder is not the one that was approved"
        )
    policy = dataclasses.replace(policy, approved=kept)
    policy.save(path)
    return policy


def write_gate(job: Job, local: Path) -> Path:
    """Write ``privacy.json``, which lets a job's tensors alone pass whatever jobs say, and the manifest beside it.

    Returns:
        Its path.

    Raises:
        ConfigError: there is one, or no such folder.
    """
    check_local(local)
    path = local / GATE_NAME
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists; merge by hand, or move it away first")
    approved = (local / f"approved_manifest_{job.plan.experiment}.json").resolve()
    write_json(approved, job.manifest.to_json())
    args = {"manifest": str(approved), **_numbers_let_through(job)}
    gate = [{"path": "monai_fedlora.federated.filters.SharedOnly", "args": args}]
    scope = {"name": _SCOPE, "properties": {}, "task_data_filters": gate, "task_result_filters": gate}
    write_json(path, {"scopes": [scope], "default_scope": _SCOPE})
    return path


def kept_bits(local: Path) -> int | None:
    """To how many bits of its mantissa a site's own ``privacy.json`` rounds every value that leaves; None for all.

    Raises:
        ConfigError: the file cannot be read.
    """
    found = (_gate_args(local) or {}).get("kept_bits")
    return found if type(found) is int else None


def _gate_args(local: Path) -> Mapping[str, Any] | None:
    """The arguments of the one gate in a site's ``privacy.json``; None where it has another form, or is not there."""
    path = local / GATE_NAME
    if not os.path.lexists(path):
        return None
    value = read_json(path)
    try:
        (scope,) = value["scopes"]
        (gate,) = scope["task_result_filters"]
        args = gate["args"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return args if isinstance(args, Mapping) else None


def _blocked_by_gate(job: Job, local: Path) -> str | None:
    """Why a ``privacy.json`` that :func:`write_gate` has written would stop a job; one of another kind says nothing."""
    path, args = local / GATE_NAME, _gate_args(local)
    if args is None or "manifest" not in args:
        return None
    file, expected = args["manifest"], _numbers_let_through(job)
    said = {key: args.get(key, value) for key, value in expected.items()}
    if (bits := kept_bits(local)) is not None and job.plan.encoding is not None:
        return (
            f"{path} rounds what leaves to {bits} bits (kept_bits), and the job's changes are encoded (wire_dtype "
            f"{job.plan.wire_dtype}, top_k {job.plan.top_k:g}), which cannot be rounded: every answer would be "
            "blocked. Ask for a job with wire_dtype float16 and top_k 1, or take kept_bits out there"
        )
    if Manifest.load(file) != job.manifest:
        return f"{path} lets other tensors through than the job's ({file})"
    if said != expected or ("task" in args) != ("task" in expected):
        lets, has = (_in_words(entry) for entry in ({**said, **_of_task(args)}, expected))
        return f"{path} lets numbers about {lets} through, and the job has {has}"
    return None


def _numbers_let_through(job: Job) -> dict[str, Any]:
    """The arguments of the gate that say which metrics a report may have."""
    plan = job.plan
    if plan.task == CLASSIFICATION.name:
        return {"classes": len(plan.classes)}
    return {"task": plan.task, "names": list(plan.classes)}


def _of_task(args: Mapping[str, Any]) -> dict[str, Any]:
    return {key: args[key] for key in ("classes", "task", "names") if key in args}


def _in_words(entry: Mapping[str, Any]) -> str:
    if "task" in entry:
        return f"{entry['task']} of {', '.join(map(str, entry.get('names', ())))}"
    return f"{entry.get('classes')} classes"
