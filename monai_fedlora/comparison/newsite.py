"""A site that joins after the federation has ended."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.engines.utils import IterationEvents

from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.splits import seeded_rank
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import load_shared
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.scope import Role
from monai_fedlora.site_report import round_report


class NewSite(Site):
    """A site that receives a finished federation's shared tensors, and trains only its private part.

    The private part is initialised as that of a member in round 0. It is trained for as many epochs as a member's was,
    round by round, with the same learning rates, phases and penalties; shared parameters, a shared head among them, do
    not change. Arguments are those of :class:`Site`, with a plan for this site alone.

    Attributes:
        scores: what the model that was evaluated last says of every test case.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, policy=lambda: NOTHING_LEAVES)
        self._trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._keep_shared)
        self.scores: list[dict[str, Any]] = []

    def _check_steps(self) -> None:
        """Do not check: this site can be evaluated without training, see :attr:`can_train`."""

    @property
    def can_train(self) -> bool:
        """Whether it has enough cases for a training step in every phase of a round."""
        try:
            super()._check_steps()
        except ConfigError:
            return False
        return True

    @property
    def has_private_part(self) -> bool:
        """Whether the method has private parameters."""
        return bool(self.scope.keys(Role.PRIVATE))

    def receive(self, path: Path) -> dict[str, np.ndarray]:
        """Read the federation's last shared tensors.

        Raises:
            WeightsError: they are not those of this site's method.
        """
        return load_shared(path, manifest=self.scope.manifest)[0]

    def at_once(self, shared: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
        """Test metrics of the shared model without training; None where the shared parameters alone are not a model."""
        self._open(0, shared)
        context = self.method.shared_only(self.network)
        if context is None:
            return None
        with context:
            return self._test_metrics()

    def personalised(self, shared: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Train the private part on the site's training cases; test metrics of the personal model."""
        self._open(0, shared)
        for _ in range(self.plan.rounds):
            self._trainer.run_epochs(self.plan.local_epochs)
        return self._test_metrics()

    def _test_metrics(self) -> dict[str, Any]:
        """Metrics of the test split, rounded like those of members."""
        metrics, _, self.scores = self._run_evaluator("test")
        rounded: dict[str, Any] = round_report({"test": {"new": metrics}})["test"]["new"]
        return rounded

    def _keep_shared(self, engine: Any) -> None:
        """Drop the gradients of shared parameters, so that the optimiser does not change them."""
        shared = set(self.scope.keys(Role.SHARED))
        for name, parameter in self.network.named_parameters():
            if name in shared:
                parameter.grad = None


def fewer_cases(datalist: Datalist, n: int, *, seed: int) -> Datalist:
    """A datalist with ``n`` of its training cases; validation and test stay.

    The proportions of the classes are kept as far as whole cases allow. With the same seed, the cases for a smaller
    ``n`` are among those for a larger one.
    """
    members: dict[int, list[Case]] = defaultdict(list)
    for case in sorted(datalist.training, key=lambda case: seeded_rank(case.subject, seed)):
        members[case.label].append(case)
    place = {
        case.subject: ((position + 0.5) / len(cases), seeded_rank(case.subject, seed))
        for cases in members.values()
        for position, case in enumerate(cases)
    }
    chosen = sorted(datalist.training, key=lambda case: place[case.subject])[:n]
    return dataclasses.replace(datalist, training=tuple(chosen))
