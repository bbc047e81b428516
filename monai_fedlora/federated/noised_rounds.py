"""What a plan's budget for privacy asks of a site: noise, an account, and silence about everything else.

Under a budget all rounds train the shared part alone, in the view without any private part, on noised gradients of
single patients. The private part is trained after the last round, on top of the last shared one and without noise:
nothing that was computed with it leaves. How many patients take part in a step, with which noise, and how many steps
there are follow from the plan and the bundle, which everybody knows, and from nothing that the site's data say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from torch import nn

from monai_fedlora.data.cases import Case
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.engines.noised_trainer import NoisedTrainer
from monai_fedlora.engines.schedule import WarmupCosine
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.plan_budget import SAID
from monai_fedlora.federated.site_policy import Policy
from monai_fedlora.federated.update import payload_digest
from monai_fedlora.methods import Method
from monai_fedlora.privacy.account import Account
from monai_fedlora.privacy.accounting import epsilon_of, noise_for
from monai_fedlora.privacy.ledger import Ledger
from monai_fedlora.privacy.mechanism import Mechanism, sampling_of_round
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.privacy.randomness import Randomness
from monai_fedlora.scope import Scope


@dataclass(frozen=True, kw_only=True)
class NoisedRound:
    """The noised training of one round at one site, as the plan decides it.

    Attributes:
        mechanism: of the round.
        epochs: in it, of equally many steps.
        expected: patients in a step on average, by which a sum of gradients is divided.
    """

    mechanism: Mechanism
    epochs: int
    expected: float

    @classmethod
    def of(cls, plan: Plan, site: str, *, batch_size: int) -> NoisedRound:
        """What a plan with a budget asks of a site.

        Args:
            plan: the experiment.
            site: one of its sites.
            batch_size: patients in a step on average, unless the site has fewer.

        Raises:
            ConfigError: the plan has no budget, does not declare how many patients the site trains on, or its noise is
                too little for its epsilon.
        """
        settings = plan.privacy
        if settings is None:
            raise ConfigError(f"the plan of {plan.experiment} has no budget for privacy")
        if (patients := plan.declared_cases.get(site)) is None:
            raise ConfigError(
                f"under a budget the plan declares how many patients each site trains on, and it does not of {site}: "
                "--cases SITE=N,... (what a site counts itself would tell about its patients)"
            )
        settings.check_patients(patients, site=site)
        rate, steps = sampling_of_round(patients=patients, batch_size=batch_size, epochs=plan.local_epochs)
        rounds = plan.start_round + plan.rounds
        answers = settings.charges(rounds)
        least = partial(
            noise_for, epsilon=settings.epsilon, delta=settings.delta, sample_rate=rate, steps=steps * answers
        )
        noise = settings.noise or least()
        mechanism = Mechanism(noise_multiplier=noise, sample_rate=rate, steps=steps)
        if settings.noise and epsilon_of([mechanism] * answers, delta=settings.delta) > settings.epsilon:
            raise ConfigError(
                f"privacy: with a noise of {noise:g}, {rounds} rounds{_spare(settings)} of {steps} steps on {patients} "
                f"patients of {site} tell more than epsilon {settings.epsilon:g} allows; it takes {least():g}, or "
                "fewer rounds"
            )
        return cls(mechanism=mechanism, epochs=plan.local_epochs, expected=rate * patients)

    @property
    def of_epoch(self) -> Mechanism:
        """Of one of its epochs."""
        return replace(self.mechanism, steps=self.mechanism.steps // self.epochs)


def _spare(settings: PrivacySettings) -> str:
    return f" and {settings.spare_rounds} to spare" if settings.spare_rounds else ""


def checked_account(
    plan: Plan, site: str, cases: Sequence[Case], *, noised: NoisedRound, ledger: Path, policy: Callable[[], Policy]
) -> Account:
    """A site's account of its patients, once no budget stands against all rounds of a plan that has one.

    Args:
        plan: the experiment.
        site: the site's name.
        cases: that train.
        noised: what the plan asks of the site.
        ledger: folder in which the ledger lies.
        policy: returns the site's own limits.

    Raises:
        PolicyError: all rounds together would pass a budget; nothing was trained.
        PrivacyError: see :meth:`Account.check`.
    """
    assert plan.privacy is not None
    account = Account(
        ledger=Ledger.of_site(ledger),
        experiment=plan.experiment,
        site=site,
        codes={code for case in cases for code in (case.subject, case.unit) if code is not None},
        patients=len(set(unit_numbers(cases))),
        settings=plan.privacy,
        budget=lambda: policy().budget,
    )
    account.check(noised.mechanism, rounds=plan.start_round + plan.rounds)
    return account


class UnderBudget:
    """A site's part in an experiment with a budget.

    Args:
        plan: the experiment.
        site: the site's name.
        trainer: of the site's bundle.
        method: attached to its network.
        scope: roles of the network's tensors.
        cases: that train.
        config: the bundle's, with the plan's settings.
        ledger: folder in which the ledger lies.
        policy: returns the site's own limits.

    Attributes:
        trainer: trains a round's shared part.

    Raises:
        ConfigError: see :meth:`NoisedRound.of` and :class:`NoisedTrainer`.
        PolicyError: all rounds together would pass a budget; nothing was trained.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        site: str,
        trainer: Any,
        method: Method,
        scope: Scope,
        cases: Sequence[Case],
        config: ConfigParser,
        ledger: Path,
        policy: Callable[[], Policy],
    ) -> None:
        assert plan.privacy is not None
        if not isinstance(trainer, CaseTrainer):
            raise ConfigError("under a budget a bundle trains with CaseTrainer, whose steps can be noised")
        self._noised = NoisedRound.of(plan, site, batch_size=config.get("batch_size"))
        self._patients = plan.declared_cases[site]
        self._shared = tuple(scope.manifest.up.entries)
        self._randomness = Randomness()
        self._account = checked_account(plan, site, cases, noised=self._noised, ledger=ledger, policy=policy)
        schedule = WarmupCosine(
            optimizer=trainer.optimizer,
            learning_rate=config.get("learning_rate"),
            epochs=plan.total_epochs,
            warmup_epochs=config.get("warmup_epochs", 0),
        )
        self.trainer = NoisedTrainer(
            trainer,
            method=method,
            shared=self._shared,
            mechanism=self._noised.of_epoch,
            clip=plan.privacy.clip,
            expected=self._noised.expected,
            units=unit_numbers(cases),
            randomness=self._randomness,
            handlers=[schedule],
        )

    def begin(self) -> None:
        """Refuse one more round that would pass a budget, before it trains."""
        self._account.check(self._noised.mechanism)

    def charge(self, round_number: int, tensors: Mapping[str, np.ndarray]) -> None:
        """Write down what a round's answer costs, before it is stored or leaves."""
        self._account.charge(
            self._noised.mechanism,
            round_number=round_number,
            randomness=self._randomness,
            answer=payload_digest(tensors),
        )

    def check_paid(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Refuse to send a stored answer again that no charge of the ledger is for.

        Raises:
            PrivacyError: the ledger was set back, lost, or is another one.
        """
        if not self._account.covers(payload_digest(tensors)):
            raise PrivacyError(
                "the site has an answer to this round on its disk, and its ledger knows nothing of it: the ledger was "
                "set back or replaced. Nothing was sent; put the right ledger back, or train in a new experiment"
            )

    def said(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """What of a report leaves."""
        return {name: value for name, value in {**report, "cases": self._patients}.items() if name in SAID}

    @contextmanager
    def private_alone(self, network: nn.Module) -> Iterator[None]:
        """Hold the shared parameters still, so that only the private ones train."""
        named = dict(network.named_parameters())
        trained = [named[name] for name in self._shared if named[name].requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
