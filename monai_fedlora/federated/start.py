"""The starting point of a run (first round, shared tensors, earlier lengths), for every runner alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from monai_fedlora.environment import BACKBONE
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.federated.changes import listed
from monai_fedlora.federated.initial import (
    IMAGES,
    build_manifest,
    build_shared,
    changes_since,
    check_resumable,
    job_images,
    load_shared,
    needs_backbone,
    save_shared,
)
from monai_fedlora.federated.installation import check_installed
from monai_fedlora.federated.job_files import INITIAL_NAME, MANIFEST_NAME, PLAN_NAME
from monai_fedlora.federated.limits import LENGTHS, Lengths, stored_lengths
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.run_record import BEST_NAME, LAST_NAME
from monai_fedlora.federated.server_optimizer import Moments
from monai_fedlora.federated.server_state import ACCEPTED, Accepted, stored_accepted, stored_moments
from monai_fedlora.files import load_tensors
from monai_fedlora.scope import Manifest


@dataclass(frozen=True, kw_only=True)
class Start:
    """The beginning of a run.

    Args:
        plan: the experiment.
        manifest: what may travel.
        shared: shared tensors that the first round sends, by key, in the manifest's types.
        earlier: lengths of the changes of the rounds before, see :class:`monai_fedlora.federated.limits.UpdateBound`.
        moments: of the server's optimiser after these rounds.
        accepted: last accepted round of every site in these rounds.
        images: kind of the images behind the shared tensors; None where the plan's seed has drawn them.
        first: the round that comes next; None for the plan's first.
    """

    plan: Plan
    manifest: Manifest
    shared: dict[str, np.ndarray]
    earlier: Lengths = ()
    moments: Moments = field(default_factory=dict)
    accepted: Accepted = field(default_factory=dict)
    images: str | None = None
    first: int | None = None

    @property
    def first_round(self) -> int:
        """The round that comes next."""
        return self.plan.start_round if self.first is None else self.first

    @classmethod
    def of_job(cls, config: Path, *, backbone: str | None = None) -> Start:
        """Read a job's folder of configuration.

        A run starts from ``initial_shared.safetensors`` where there is one, and from the plan's seed otherwise.

        Args:
            config: the folder with ``plan.json`` and ``manifest.json``.
            backbone: see :meth:`of_plan`.

        Raises:
            ConfigError: the plan begins in a later round, and what it should go on from is missing, of another
                experiment or round, or of other settings than the plan says (see :attr:`Plan.changed`).
                Or other packages or another bundle are installed here than the plan pins.
            PrivacyError: the job's manifest is not what its plan shares.
            WeightsError: stored tensors are damaged or do not fit.
        """
        plan, declared = Plan.load(config / PLAN_NAME), Manifest.load(config / MANIFEST_NAME)
        check_installed(plan.bundle, bundle_sha256=plan.bundle_sha256, versions=plan.versions)
        if declared != build_manifest(plan):
            raise PrivacyError(
                f"{config / MANIFEST_NAME}: the job's manifest does not fit its plan; make the job again with this "
                "version"
            )
        stored = config / INITIAL_NAME
        if plan.start_round:
            _check_goes_on(stored, plan)
        if not stored.is_file():
            return cls.of_plan(plan, backbone=backbone)
        shared, _ = load_shared(stored, manifest=declared)
        return cls(
            plan=plan,
            manifest=declared,
            shared=shared,
            earlier=stored_lengths(stored, plan, first=plan.start_round),
            moments=stored_moments(stored, declared, plan, first=plan.start_round),
            accepted=stored_accepted(stored, plan, first=plan.start_round),
            images=job_images(stored, plan),
        )

    @classmethod
    def of_plan(cls, plan: Plan, *, backbone: str | None = None) -> Start:
        """Begin with what a plan's seed draws.

        Args:
            plan: the experiment; it begins in round 0.
            backbone: path of the backbone file, read only if the method shares what comes from it; None uses
                ``MONAI_FEDLORA_BACKBONE``, then the packaged demo weights.

        Raises:
            ConfigError: the plan begins in a later round.
            WeightsError: the backbone cannot be used.
        """
        from monai_fedlora.methods.build import DEMO

        if plan.start_round:
            raise ConfigError(
                f"the plan begins in round {plan.start_round}, so that it needs the job folder with what earlier "
                f"rounds have left ({INITIAL_NAME})"
            )
        found = (backbone or os.environ.get(BACKBONE) or DEMO) if needs_backbone(plan) else None
        manifest, shared = build_shared(plan, backbone=found)
        return cls(plan=plan, manifest=manifest, shared=shared)

    @classmethod
    def of_network(cls, plan: Plan, network: nn.Module) -> Start:
        """Begin with what a network holds that is attached to the plan's method."""
        scope = plan.scope(network)
        return cls(plan=plan, manifest=scope.manifest, shared=scope.initial_payload(network))


class SharedFiles:
    """Keeps the shared tensors of a run that is going on: the last round's, and the best round's.

    Best is the model with the best case-weighted mean of the task's key metric on validation cases (balanced accuracy
    for classification) over the sites whose update was accepted; sites measure what a round sends them.

    Args:
        folder: where ``shared.safetensors`` and ``best_shared.safetensors`` are written.
        start: the beginning of the run.
    """

    def __init__(self, *, folder: Path, start: Start) -> None:
        self._folder = folder
        self._plan = start.plan
        self._sent: Mapping[str, np.ndarray] = start.shared
        self._lengths = start.earlier
        self._moments = start.moments
        self._accepted = start.accepted
        self._images = start.images
        self._best = None if start.first is None else _score(folder / BEST_NAME)

    def save(
        self,
        shared: Mapping[str, np.ndarray],
        *,
        round_number: int,
        score: float | None,
        lengths: Lengths,
        moments: Moments,
        accepted: Accepted,
        images: str,
    ) -> None:
        """Write what a round has brought, and what it started from if that scored best so far.

        With them goes what a run that goes on from there has to know about the ``lengths`` of changes so far, the
        ``moments`` of the server's optimiser, the last ``accepted`` round of every site, and the kind of all ``images``
        that have moved them.
        """
        before: dict[str, Any] = {LENGTHS: self._lengths, IMAGES: self._images, "moments": self._moments}
        before[ACCEPTED] = self._accepted
        lower = self._plan.task_of.lower_is_better
        if score is not None and (self._best is None or (score < self._best if lower else score > self._best)):
            self._best = score
            best, number = self._folder / BEST_NAME, round_number - 1
            save_shared(best, self._sent, plan=self._plan, round_number=number, score=score, **before)
        after: dict[str, Any] = {LENGTHS: lengths, IMAGES: images, "moments": moments, ACCEPTED: accepted}
        save_shared(self._folder / LAST_NAME, shared, plan=self._plan, round_number=round_number, **after)
        self._sent, self._lengths, self._moments, self._images = shared, lengths, moments, images
        self._accepted = accepted


def _score(best: Path) -> float | None:
    """The score of the best model that an interrupted run has kept; None where there is none."""
    return float(load_tensors(best)[1]["score"]) if best.is_file() else None


def _check_goes_on(stored: Path, plan: Plan) -> None:
    """Refuse stored tensors of any other round than the one before the plan's first."""
    if not stored.is_file():
        raise ConfigError(
            f"{stored} does not exist, and the plan begins in round {plan.start_round}; make the job again with "
            "--start-from and --resume"
        )
    number = check_resumable(stored, plan=plan)
    changes, _ = changes_since(stored, plan=plan)
    if number != plan.start_round - 1:
        raise ConfigError(
            f"{stored} was stored after round {number}, and the plan begins in round {plan.start_round}; make the job "
            "again with --start-from and --resume"
        )
    if unsaid := {name: change for name, change in changes.items() if name not in plan.changed}:
        raise ConfigError(
            f"the plan goes on from {stored} with other settings ({listed(unsaid)}); make the job again with the same "
            "ones, or with --accept-changes"
        )
