"""A site's own limits, which no job can change: ``policy.json`` beside ``privacy.json`` in its ``local/`` folder.

A plan chooses batch size, epochs and rounds, and comes from outside. What one message tells about one patient depends
on them: the change after one optimiser step is an exact gradient, from which a single case is read off, and of which a
batch of eight still gave a quarter of its cases away. Therefore every message that holds trained tensors has to mix at
least ``least_cases`` patients over at least ``least_steps`` optimiser steps, and an experiment gets no more than
``most_rounds`` of them, because messages about the same patients add up.

A message mixes the patients that its tensors were trained on: all of the training split, unless a method trains what
leaves in a part of the round alone; then those of the fullest epoch of that part. They count as the loss weighs them,
see :func:`effective_patients`: two photographs of one patient are one patient, and a plan whose class weights leave
next to nothing but one case has asked for one case. Steps count where a tensor that leaves is moved. No size of a batch
is asked for: what leaves is the sum of all steps, so that 16 patients hide in each other whether they come in 4 steps
of 4 or in 16 of 1, and with larger batches ``least_steps`` asks for more epochs. But every step counts alike, so that
the few cases of an epoch's last, smaller batch count for more, see :func:`evenness`.

These limits make it harder to read patients out of a message. They prove nothing, and do not stop a server that crafts
the tensors it sends. What proves something is a ``budget`` of differential privacy.

A job names methods, networks and rules, never code. Where a name is one that another package adds, code of that package
would run with the patients' data: no such package may unless ``plugins`` names it, at a site and at the server alike.

Whatever cannot be understood (an unknown key, a wrong type, a file that cannot be read) allows nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_fedlora.catalogues import canonical, untrusted
from monai_fedlora.environment import POLICY
from monai_fedlora.errors import ConfigError, NotApproved, PolicyError, nearest
from monai_fedlora.files import write_json
from monai_fedlora.privacy.budget import Budget

if TYPE_CHECKING:
    from monai_fedlora.federated.plan import Plan
    from monai_fedlora.scope import Manifest

FILE_NAME = "policy.json"
_BUILT_IN = "the limits that hold without a policy.json"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Approval:
    """That a person at the site has read a job and lets it train.

    Attributes:
        sha256: of the job's plan and manifest, see :func:`job_hash`.
        experiment: the plan's name, for people.
        date: ``YYYY-MM-DD``, for people.
    """

    sha256: str
    experiment: str
    date: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a site lets jobs ask for.

    Attributes:
        least_cases: training patients behind a message, as the loss weighs them (ours: 16, twice the batch of which a
            quarter could still be read).
        least_steps: optimiser steps between what came and what goes (ours: 4).
        most_rounds: rounds of one experiment over its life at this site, resumed and repeated ones included; final
            evaluations are counted apart, and no more than this either (ours: 100).
        methods: names of those that may train; None for all.
        bundles: names of those that may be used; None for all that are installed.
        plugins: packages, as pip lists them, whose plug-ins a job may name (ours: none); None for all that are
            installed.
        budget: what all experiments together may tell of one patient, see :mod:`monai_fedlora.privacy.account`; None
            for no such limit. Where there is one, nothing trains that keeps no account.
        require_approval: whether nothing trains but what is in ``approved``.
        approved: jobs that were read and approved.
        source: where it was read, for messages.
    """

    least_cases: int = 16
    least_steps: int = 4
    most_rounds: int = 100
    methods: tuple[str, ...] | None = None
    bundles: tuple[str, ...] | None = None
    plugins: tuple[str, ...] | None = ()
    budget: Budget | None = None
    require_approval: bool = False
    approved: tuple[Approval, ...] = ()
    source: str = field(default=_BUILT_IN, compare=False)

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan for its method, its bundle, its plug-ins, its lack of an account or its number of rounds.

        Raises:
            PolicyError: the message begins with the limit's name.
        """
        for limit, name, allowed in (("methods", plan.method, self.methods), ("bundles", plan.bundle, self.bundles)):
            if allowed is not None and name not in allowed:
                self._refuse(limit, f"{name} is not among those allowed ({', '.join(allowed) or 'none'})")
        self.check_plugins(plan)
        if self.budget is not None and plan.privacy is None:
            self._refuse(
                "budget", f"the plan trains without differential privacy, and all of {self.budget} is too little"
            )
        if plan.start_round + plan.rounds > self.most_rounds:
            self._refuse(
                "most_rounds", f"the plan goes on to {plan.start_round + plan.rounds} rounds, of {self.most_rounds}"
            )

    def check_plugins(self, plan: Plan) -> None:
        """Refuse a plan that names a plug-in of a package which is not trusted here.

        Raises:
            PolicyError: the message begins with "plugins".
        """
        trusted = None if self.plugins is None else set(map(canonical, self.plugins))
        for name, version in plan.plugins.items():
            if trusted is not None and canonical(name) not in trusted:
                raise PolicyError(untrusted(f"the plan names plug-ins of {name} {version}", self.source, name))

    def check_cases(self, patients: float) -> None:
        """Refuse training on too few patients, see :func:`effective_patients`."""
        if not patients >= self.least_cases:
            self._refuse(
                "least_cases",
                f"the site trains on {patients:.4g} patients what it would send, as the loss weighs them, of at least "
                f"{self.least_cases}",
            )

    def check_steps(self, steps: int) -> None:
        """Refuse a message after too few steps of the optimiser."""
        if steps < self.least_steps:
            self._refuse(
                "least_steps",
                f"what leaves is trained in {steps} optimiser steps, of at least {self.least_steps}; more local epochs "
                "or smaller batches make more",
            )

    def check_count(self, what: str, done: int) -> None:
        """Refuse one more message of a kind."""
        if done >= self.most_rounds:
            self._refuse("most_rounds", f"this experiment has had {done} {what} here, of at most {self.most_rounds}")

    def check_approved(self, plan: Plan, manifest: Manifest) -> None:
        """Refuse a job that nobody at the site has approved, where the policy asks for that."""
        if self.require_approval and job_hash(plan, manifest) not in {approval.sha256 for approval in self.approved}:
            self._refuse(
                "require_approval",
                f"no approval fits this job of {plan.experiment}, with these settings and rounds and these tensors; "
                "read it with: monai-fedlora approve JOB --output DIR",
                NotApproved,
            )

    def _refuse(self, limit: str, why: str, kind: type[PolicyError] = PolicyError) -> None:
        raise kind(
            f"{limit}: {why} ({self.source}). Nothing was sent. The site can allow more in its {FILE_NAME}, see "
            "monai-fedlora policy"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``policy.json``."""
        value: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        del value["source"]
        return value

    @classmethod
    def from_json(cls, value: Any, *, source: str) -> Policy:
        """Parse the content of ``policy.json``; what is left out keeps its default.

        Raises:
            PolicyError: a key is unknown or its value of a wrong kind; the message begins with ``source``.
        """
        if not isinstance(value, Mapping):
            raise PolicyError(f"{source}: a policy is a JSON object; until it is one, nothing trains")
        entries: dict[str, Any] = {}
        for key, entry in value.items():
            if key not in _READERS:
                raise PolicyError(
                    f"{source}: {key!r} is not a limit; the limits are {', '.join(_READERS)}. Until the file is right, "
                    "nothing trains"
                )
            try:
                entries[key] = _READERS[key](entry)
            except ValueError as error:
                raise PolicyError(f"{source}: {key} must be {error}; until it is, nothing trains") from None
        return cls(**entries, source=source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Read a policy file.

        Raises:
            PolicyError: it cannot be read or understood; the message names it.
        """
        try:
            value = json.loads(Path(path).read_bytes().decode("utf-8"), object_pairs_hook=_unique)
        except (OSError, ValueError, RecursionError) as error:
            raise PolicyError(f"{path} cannot be read ({error}); until it can, nothing trains") from error
        return cls.from_json(value, source=str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy file, all limits spelt out."""
        write_json(path, self.to_json())


NOTHING_LEAVES = Policy(least_cases=1, least_steps=1, most_rounds=sys.maxsize, plugins=None)
"""The policy for runs inside one process, where no message leaves: no limits. A site's own limits would refuse the few
cases of a shadow run or of a first try."""


def site_policy(local: Path | None = None) -> Policy:
    """The policy that holds here: ``policy.json`` in the site's ``local/``, else ``$MONAI_FEDLORA_POLICY``, else ours.

    A file in ``local/`` wins, so that a variable that was set for a rehearsal loosens nothing.

    Args:
        local: the local folder of an NVFlare kit.

    Raises:
        PolicyError: the policy cannot be read; a file that the variable names has to be there.
    """
    if local is not None and not _is_absent(local / FILE_NAME):
        return Policy.load(local / FILE_NAME)
    named = os.environ.get(POLICY)
    return Policy.load(named) if named else Policy()


def check_local(local: Path) -> None:
    """Make sure that what is written into a site's ``local/`` folder will be found there.

    Somewhere else the folder may be new, as in a rehearsal.

    Raises:
        ConfigError: it is missing in a site's startup kit, or the folder around it is; the name may be mistyped.
    """
    around = local.absolute().parent
    if local.is_dir() or (around.is_dir() and not (around / "startup").is_dir()):
        return
    if not around.is_dir():
        raise ConfigError(f"--output {local}: there is no folder {around}; is the name mistyped?")
    near = nearest(local.name, sorted(path.name for path in around.iterdir() if path.is_dir()))
    raise ConfigError(f"--output {local}: the site in {around} has no such folder, and reads its local/ alone{near}")


def own_policy() -> Policy:
    """The policy for a federation in its user's own process: that of :func:`site_policy`, with all plug-ins allowed.

    There the user writes the plan, and has installed the plug-ins that it can name.
    """
    return dataclasses.replace(site_policy(), plugins=None)


def job_hash(plan: Plan, manifest: Manifest) -> str:
    """What an approval approves: SHA-256 of the canonical JSON of plan and manifest.

    Any other value of any entry is another job. One that goes on with the rounds that are left, to the same last round
    with the same settings, is the job that was approved: nobody has to act after a crash. Rounds that are repeated
    count towards ``most_rounds`` all the same.
    """
    whole = {**plan.to_json(), "start_round": 0, "rounds": plan.start_round + plan.rounds}
    content = {"plan": whole, "manifest": manifest.to_json()}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def effective_patients(patients: Sequence[str], weights: Sequence[float]) -> float:
    """How many patients a mean over cases is about: (sum w)^2 / sum w^2 over patients (Kish, Survey Sampling, 1965).

    With equal weights and a case for each it is their number; it comes near 1 where one patient outweighs all others.

    Args:
        patients: whom each case is of.
        weights: of each case in the loss, at least 0.
    """
    totals: dict[str, float] = defaultdict(float)
    for patient, weight in zip(patients, weights, strict=True):
        totals[patient] += weight
    largest = max(totals.values(), default=0.0)
    if largest <= 0:
        return 0.0
    shares = [total / largest for total in totals.values()]
    return sum(shares) ** 2 / sum(share**2 for share in shares)


def evenness(cases: int, *, step: int, epochs: int) -> float:
    """By what share fewer patients a message is about, because the last step of an epoch is taken with what is left.

    With 17 cases in steps of 16 one case in every epoch has a step of its own, as heavy as that of all others together.
    It is another case in each epoch; the share is that of :func:`effective_patients`, from above 0 to 1.

    Args:
        cases: that train.
        step: cases of a full step of the optimiser.
        epochs: that are trained between two messages, at least 1.
    """
    left = cases % step
    if not left or cases < step:
        return 1.0
    few = min(epochs * left, cases)
    heavy, light = 1 / left + (epochs - 1) / step, epochs / step
    total = few * heavy + (cases - few) * light
    return min(total**2 / (few * heavy**2 + (cases - few) * light**2) / cases, 1.0)


def _is_absent(path: Path) -> bool:
    """Whether the file certainly does not exist; False where its folder cannot be read, so that reading it fails."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


def _switch(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError("null for all, or a list of names")
    return tuple(value)


def _approvals(value: Any) -> tuple[Approval, ...]:
    keys = {entry.name for entry in dataclasses.fields(Approval)}
    for entry in value if isinstance(value, list) else [None]:
        if (
            not isinstance(entry, dict)
            or set(entry) != keys
            or not all(isinstance(text, str) for text in entry.values())
            or not _HASH.fullmatch(entry["sha256"])
        ):
            raise ValueError("a list of approvals, each with sha256 (64 hexadecimal digits), experiment and date")
    return tuple(Approval(**entry) for entry in value)


_READERS = {
    "least_cases": _count,
    "least_steps": _count,
    "most_rounds": _count,
    "methods": _names,
    "bundles": _names,
    "plugins": _names,
    "budget": Budget.from_json,
    "require_approval": _switch,
    "approved": _approvals,
}
