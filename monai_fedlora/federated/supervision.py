"""What a supervisor has to remember to go on after it was ended itself, and the record of a run in several jobs."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.run_record import ATTEMPTS, ENDED, outcome
from monai_fedlora.files import read_json, write_json

FILE_NAME = "supervision.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """The state of a supervised run, kept as ``supervision.json`` in its folder.

    Args:
        plan_sha256: of the first job's plan, which is that of the whole run.
        key: that lets the supervisor follow its jobs, which name its hash alone.
        job: folder of the job that was, or is about to be, submitted.
        token: of that submission; NVFlare takes a job once for each.
        job_id: that NVFlare has given it; None before.
        number: jobs of this run so far, this one included.
        tries: of them, those since a round was last stored.
        seconds: that earlier jobs took.
        stored: the last round that was stored before this job; None before the first.
        failures: how many jobs failed by a site, as far as could be seen, by its name.
        left_out: sites that the job was not sent to.
        noted: refusals, and attempts at rounds that did not count, of earlier jobs, as their joined record has them.
    """

    plan_sha256: str
    job: str
    key: str = field(default_factory=secrets.token_hex)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    job_id: str | None = None
    number: int = 1
    tries: int = 1
    seconds: float = 0.0
    stored: int | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    noted: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def follower(self) -> str:
        """What jobs say of the key."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path) -> Supervision | None:
        """Read it; None where there is none.

        Raises:
            ConfigError: it is damaged, or of a later version.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            return None
        value = read_json(path)
        try:
            if value.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            return cls(**{**value, "left_out": tuple(value["left_out"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path} is no state of a supervised run ({error}); give another --workspace, or remove the file to "
                "begin anew"
            ) from error

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_json(folder / FILE_NAME, {"format": FORMAT, **dataclasses.asdict(self)})


def joined(
    earlier: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    plan: Plan,
    seconds: float = 0.0,
    noted: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """The record of a run from what its earlier jobs and its current one have written.

    Args:
        earlier: the joined record so far, of earlier jobs and perhaps of the current one; empty for the first.
        now: the current job's own record.
        plan: of the first job, which is that of the whole run.
        seconds: that earlier jobs took.
        noted: see :class:`Supervision`; what it lacks is taken from ``earlier``, of rounds that are not repeated.
    """
    first = now["plan"].get("start_round", 0)
    value = {**now, "plan": plan.to_json(), "seconds": seconds + now.get("seconds", 0.0)}
    for name in ("rounds", "restarted", *ATTEMPTS):
        kept = [entry for entry in earlier.get(name, ()) if entry["round"] < first]
        value[name] = [*(noted or {}).get(name, kept), *now[name]]
    if first > plan.start_round and earlier:
        sites = {**earlier["training_data"]["sites"], **now["training_data"]["sites"]}
        value["training_data"] = {**now["training_data"], "sites": sites, "start": earlier["training_data"]["start"]}
    if now["status"] in ENDED:
        value |= outcome(value)
    return value
