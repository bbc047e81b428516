"""Whether a site may train for a job and send what it trained: its policy, applied to what the site sees itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from monai_fedlora.data.cases import Case
from monai_fedlora.engines.method import Turns
from monai_fedlora.errors import FedLoraError, PolicyError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_policy import Policy, effective_patients, evenness
from monai_fedlora.files import make_folder, read_json, write_json
from monai_fedlora.patient_codes import plain_code
from monai_fedlora.scope import Manifest

ROUNDS, EVALUATIONS = "rounds", "final evaluations"
_FOLDER = ".messages"


class Permit:
    """Asks a site's policy, again before every message, so that an approval that was withdrawn ends a run.

    A site calls it as soon as it knows its cases, its shared tensors and its optimiser; :meth:`check` uses what is
    known by then.

    Args:
        read: returns the policy that holds now.
        plan: the experiment.
        site: the site's name.
        private_root: folder for private state. How many messages have left is kept there in
            ``.messages/<experiment>/<site>.json``, which no round clears: a server that starts an experiment anew gets
            no more of them.
    """

    def __init__(
        self, *, read: Callable[[], Policy], plan: Plan, site: str, private_root: str | os.PathLike[str]
    ) -> None:
        self._read = read
        self._plan = plan
        self._counts = Path(private_root) / _FOLDER / plan.experiment / f"{site}.json"
        self._patients: float | None = None
        self._manifest: Manifest | None = None
        self._planned: int | None = None
        self._passed = self._even = 1.0
        self._done = 0
        self._still: Callable[[], bool] = lambda: False

    def check(self) -> Policy:
        """Refuse what the policy does not allow.

        Raises:
            PolicyError: the message names the limit.
        """
        policy = self._read()
        policy.check_plan(self._plan)
        if self._patients is not None:
            policy.check_cases(self._patients * self._passed * self._even)
        if self._manifest is not None:
            policy.check_approved(self._plan, self._manifest)
        if self._planned is not None:
            policy.check_steps(self._planned)
        return policy

    def trains_on(self, cases: Sequence[Case], class_weights: Sequence[float] | None = None) -> None:
        """Learn which cases train, and how the loss weighs their classes; None for all alike."""
        patients = [
            plain_code(case.subject) if case.unit is None else f"unit {plain_code(case.unit)}" for case in cases
        ]
        weights = [1.0 if class_weights is None else float(class_weights[case.label]) for case in cases]
        self._patients = effective_patients(patients, weights)
        self.check()

    def sends(self, manifest: Manifest) -> None:
        """Learn what travels."""
        self._manifest = manifest
        self.check()

    def trains_with(self, trainer: Any, optimiser: Optimizer, network: nn.Module) -> None:
        """Learn how many steps a round takes, and count those that are taken.

        Steps that move only private parameters, as in a phase for the private head, do not count. Where a round has
        nothing else, because phases take turns over several rounds, it trains nothing that leaves, and as many steps as
        they are do for it.

        Args:
            trainer: with the site's own loader.
            optimiser: the trainer's.
            network: attached to the plan's method.
        """
        leaving = set(self._manifest.up.entries) if self._manifest else set()
        if not leaving:
            return
        batches = getattr(trainer, "accumulation_steps", 1)
        per_epoch = math.ceil(len(trainer.data_loader) / batches)
        steps = per_epoch * self._plan.local_epochs
        self._planned = steps
        phases = () if self._plan.privacy else self._plan.build_method().phases(network)  # noised rounds have one
        if phases and steps:  # without a step the trainer has more to say
            turns = Turns.of([phase.share for phase in phases], steps)
            moving = [any(map(phase.trains, leaving)) for phase in phases]
            moved_in = [[moving[phase] for phase in turns.in_round(number)] for number in range(turns.rounds)]
            self._planned = min(filter(None, map(sum, moved_in)), default=0)
            self._passed = min((fullest(moved, per_epoch) for moved in moved_in if any(moved)), default=0.0)
            self._still = lambda: not any(moved_in[(trainer.state.epoch - 1) // self._plan.local_epochs % turns.rounds])
        if (batch := getattr(trainer.data_loader, "batch_size", None)) is not None:
            self._even = evenness(
                len(trainer.data_loader.dataset), step=batch * batches, epochs=max(self._planned // per_epoch, 1)
            )
        moved = [parameter for name, parameter in network.named_parameters() if name in leaving]

        def count(*_: Any) -> None:
            self._done += any(parameter.grad is not None for parameter in moved)

        optimiser.register_step_post_hook(count)
        self.check()

    @property
    def idle(self) -> bool:
        """Whether phases take turns over several rounds, and the one just trained has moved nothing that leaves."""
        return self._still()

    def begin(self, what: str) -> None:
        """Ask before a message of this kind is computed: ``ROUNDS`` or ``EVALUATIONS``."""
        self.check().check_count(what, self._count()[what])
        self._done = 0

    def end(self, what: str) -> None:
        """Ask again before it leaves, by the steps that were taken, and count it."""
        policy = self.check()
        if what == ROUNDS and self._planned is not None and (self._done or not self._still()):
            policy.check_steps(self._done)
        counts = self._count()
        make_folder(self._counts.parent)
        write_json(self._counts, {**counts, what: counts[what] + 1})

    def _count(self) -> dict[str, int]:
        counts = {ROUNDS: 0, EVALUATIONS: 0}
        if not os.path.lexists(self._counts):
            return counts
        try:
            value = read_json(self._counts)
        except FedLoraError as error:
            raise PolicyError(f"most_rounds: {error}; how many messages have left is not known") from error
        if (
            not isinstance(value, dict)
            or set(value) != set(counts)
            or any(type(n) is not int or n < 0 for n in value.values())
        ):
            raise PolicyError(
                f"most_rounds: {self._counts} does not say how many messages have left; write it anew if you know: "
                f"{counts}"
            )
        return value


def fullest(moved: Sequence[bool], per_epoch: int) -> float:
    """Share of the cases that a round's moving steps have seen at least, as no case comes twice in an epoch."""
    return max(sum(moved[start : start + per_epoch]) for start in range(0, len(moved), per_epoch)) / per_epoch
