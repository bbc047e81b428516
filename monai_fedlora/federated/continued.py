"""The job that goes on where a stored run has stopped, made from what that run has stored alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.federated.initial import build_manifest, check_resumable
from monai_fedlora.federated.job_files import CONFIG, INITIAL_NAME, MANIFEST_NAME, PLAN_NAME
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.run_record import LAST_NAME
from monai_fedlora.files import load_tensors, read_json
from monai_fedlora.scope import Manifest

_DOWNLOADED = "workspace"
"""Where NVFlare puts the server's run in what it downloads."""


def find_stored(result: Path) -> Path:
    """The last shared tensors in the folder of a run, or in a downloaded job.

    Raises:
        ConfigError: there are none.
    """
    for folder in (result, result / _DOWNLOADED):
        if (folder / LAST_NAME).is_file():
            return folder / LAST_NAME
    raise ConfigError(
        f"there is no {LAST_NAME} in {result}: no round of that run came to its end, so that there is nothing to go on "
        "from; run its first job again"
    )


def stored_plan(stored: Path) -> Plan:
    """The plan of the run that has stored shared tensors.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        return Plan.from_json(json.loads(load_tensors(stored)[1]["plan"]))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{stored} does not say by which plan it was stored ({error})") from error


def stored_round(stored: Path) -> int:
    """The round after which shared tensors were stored.

    Raises:
        ConfigError: the file does not say.
        WeightsError: it is damaged.
    """
    return check_resumable(stored, plan=stored_plan(stored))


def continued_job(
    stored: Path,
    output: Path,
    *,
    without: Collection[str] = (),
    custom_folder: bool = True,
    follower: str | None = None,
) -> Plan:
    """Write the job of the rounds that are left, of the same experiment with the same settings.

    Args:
        stored: ``shared.safetensors`` of the run.
        output: job folder to create.
        without: sites that the job is not sent to.
        custom_folder, follower: see :func:`monai_fedlora.federated.jobs.write_job`.

    Returns:
        The job's plan.

    Raises:
        ConfigError: nothing is left to do; ``output`` exists; or no site is left.
        WeightsError: the file is damaged.
    """
    before, number = stored_plan(stored), stored_round(stored)
    left = before.start_round + before.rounds - number - 1
    plan = replace(before, start_round=number + 1, rounds=left)
    more: dict[str, Any] = {"custom_folder": custom_folder, "without": without, "follower": follower}
    write_job(plan, build_manifest(plan), output, initial=stored, **more)
    return plan


def same_job(job: Path, output: Path, *, without: Collection[str] = (), follower: str | None = None) -> Plan:
    """Write a job once more, for fewer sites or with a follower.

    Raises:
        ConfigError: no site is left, or ``output`` exists.
    """
    config = job / CONFIG
    plan, initial = Plan.load(config / PLAN_NAME), config / INITIAL_NAME
    write_job(
        plan,
        Manifest.load(config / MANIFEST_NAME),
        output,
        initial=initial if initial.is_file() else None,
        custom_folder=brings_custom_folder(job),
        without=without,
        follower=follower,
    )
    return plan


def check_unedited(job: Path) -> None:
    """Refuse a job folder that holds more than its plan tells, which jobs that go on would not have.

    Raises:
        ConfigError: it does.
    """
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "job"
        same_job(job, written)
        for path in sorted(written.rglob("*.json")):
            name = path.relative_to(written)
            if read_json(path) != read_json(job / name):
                raise ConfigError(
                    f"{job / name} is not as monai-fedlora job writes it: it was changed by hand, or by another "
                    "version. The jobs that go on after a failure are written anew and would not have that; write the "
                    "job again, or submit it with nvflare job submit"
                )


def brings_custom_folder(job: Path) -> bool:
    """Whether a job was written without ``--allow-listed``."""
    return (job / "app" / "custom").is_dir()
