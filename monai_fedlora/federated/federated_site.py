"""One hospital in a federation: its own data, network and private state, trained a round at a time.

The same class serves the NVFlare executor, the in-process simulation and the tests. The site's own installed bundle
builds what trains; a plan may only change the numbers listed in
:data:`monai_fedlora.federated.training_settings.TRAINING_SETTINGS`. Data and network come from a
:class:`~monai_fedlora.federated.materials.Source`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from torch import Tensor, nn

from monai_fedlora.data.cases import SPLITS
from monai_fedlora.data.origin import UNKNOWN, together
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.errors import Aborted, PrivacyError
from monai_fedlora.federated.failures import note
from monai_fedlora.federated.furnished import Furnished
from monai_fedlora.federated.installation import check_installed
from monai_fedlora.federated.materials import INSTALLED, Source
from monai_fedlora.federated.noised_rounds import UnderBudget
from monai_fedlora.federated.optimiser_state import load_optimiser, optimiser_tensors
from monai_fedlora.federated.permit import EVALUATIONS, ROUNDS, Permit
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.resting import Resting
from monai_fedlora.federated.server_state import NEVER
from monai_fedlora.federated.site_evaluation import SiteEvaluation
from monai_fedlora.federated.site_policy import Policy, site_policy
from monai_fedlora.federated.site_state import KeptAnswer, SiteState, SiteStore
from monai_fedlora.federated.site_steps import SiteSteps
from monai_fedlora.federated.update import Update, payload_digest
from monai_fedlora.scope import Role
from monai_fedlora.site_report import IDLE, IMAGES, REPORTED, Report, images_said, round_report

_log = logging.getLogger("monai_fedlora.site")  # never that of the federation, which may be in logs that travel


class Site:
    """A member of a federation.

    Args:
        name: the site's name in the plan.
        plan: the experiment.
        private_root: folder for private state, see :class:`SiteStore`.
        source: of the site's data and network.
        furnished: what was read from that source for this site before, whose network was not trained; None reads it.
        should_stop: polled after every batch; the round is given up when it returns True.
        policy: returns the site's own limits, which are asked before every message.
        alone: whether the private folder is this site's, with one ledger; of several sites that are simulated on one
            machine, whose patients may have the same codes, each run has its own.

    Raises:
        PolicyError: the site's policy does not allow the job; nothing is trained and nothing leaves.
        ConfigError: other packages or another bundle are installed here than the plan pins, the site's classes are not
            the plan's, or its cases make fewer steps in all rounds, or after the
            last one, than the method has phases.
        DataError, WeightsError: the site's data or backbone cannot be used.
    """

    def __init__(
        self,
        *,
        name: str,
        plan: Plan,
        private_root: str | os.PathLike[str],
        source: Source = INSTALLED,
        furnished: Furnished | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        policy: Callable[[], Policy] = site_policy,
        alone: bool = True,
    ) -> None:
        self.name = name
        self.plan = plan
        self._permit = Permit(read=policy, plan=plan, site=name, private_root=private_root)
        self._permit.check()
        self._private_root = Path(private_root)
        check_installed(plan.bundle, bundle_sha256=plan.bundle_sha256, versions=plan.versions)
        self.method = plan.site_method(name)
        self.store = SiteStore(root=private_root, plan=plan, site=name)
        self._bundle = furnished or Furnished.of(plan, name, source=source, output=self.store.folder)
        config, cases = self._bundle.config, self._bundle.cases
        units = {split: unit_numbers(cases.cases(split)) for split in SPLITS}
        self._origin = cases.origin
        self._cases = len(cases.training)
        self._permit.trains_on(cases.training)
        self.network: nn.Module = self._bundle.part("network")
        self.scope = plan.scope(self.network)
        self._permit.sends(self.scope.manifest)
        self._optimiser: torch.optim.Optimizer = self._bundle.part("optimizer")
        self._trainer = self._tuner = self._bundle.part("train::trainer")
        self._budget: UnderBudget | None = None
        if plan.privacy is not None:
            self._budget = UnderBudget(
                plan=plan,
                site=name,
                trainer=self._tuner,
                method=self.method,
                scope=self.scope,
                cases=cases.training,
                config=config,
                ledger=self._private_root if alone else self.store.folder,
                policy=policy,
            )
            self._trainer = self._budget.trainer
        self._resting = Resting(network=self.network, scope=self.scope, optimiser=self._optimiser)
        self._resting.uses(self._tuner.inferer)
        self._should_stop = should_stop
        for trainer in {self._trainer, self._tuner}:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, _terminate_if, should_stop)
        self._steps = SiteSteps(site=name, plan=plan, method=self.method, cases=self._cases, config=config)
        self._check_steps()
        self._permit.trains_on(cases.training, getattr(self._trainer.loss_function, "weight", None))
        self._permit.trains_with(self._trainer, self._optimiser, self.network)
        self._evaluation = SiteEvaluation(
            plan=plan,
            method=self.method,
            network=self.network,
            scope=self.scope,
            config=config,
            bundled=self._bundle.part,
            uses=self._resting.uses,
            units=units,
        )
        self._initial_private = self.scope.private_state(self.network)
        self._finished_round: int | None = None
        self._restored_rounds = 0
        self._earlier_images: tuple[str, ...] = ()
        self._residual: Mapping[str, np.ndarray] = {}

    def _check_steps(self) -> None:
        """Refuse a plan in which this site never trains a part of the method; under a budget each is trained apart."""
        if self._budget is None:
            self._steps.check(self.network)

    def train_round(
        self, round_number: int, shared: Mapping[str, np.ndarray], *, accepted: int | None = None
    ) -> Update:
        """Evaluate what the server sent, train on the site's data, keep the private part, return the shared one.

        The site begins with its private part as it was after its last accepted round: what it has trained since then
        for answers that came too late or were refused is forgotten. A round that is asked for again is answered as
        before, from the disk. What the encoding of the shared part leaves out is kept with the private one, and added
        the next time.

        Args:
            round_number: the server's round.
            shared: the server's tensors; anything but exactly the manifest is refused and changes nothing.
            accepted: the last round of which the server has accepted this site's answer, -1 for none; None where the
                server does not know, and all answers to earlier rounds count.

        Raises:
            PrivacyError: undeclared tensors from the server, a last accepted round that is not before this one, or
                private state of another experiment.
            PolicyError: the site's policy does not allow the round, or a message after so few steps.
            DataError: a patient file turned out to be unusable.
            Aborted: ``should_stop`` ended the round, of which nothing is kept.
            Busy: another process uses the site's private folder.
        """
        started = time.perf_counter()
        self._permit.check()
        sent = self._claim(round_number, shared, accepted)
        if (kept := self.store.kept_answer(round_number, sent=sent, after=accepted)) is not None:
            if self._budget:
                self._budget.check_paid(kept.tensors)
            _log.info("%s is asked for round %d again, and answers as before", self.name, round_number)
            return Update(kept.tensors, Report.parse(kept.report, form=self.plan.form, splits=("validation",)))
        self._permit.begin(ROUNDS)
        if self._budget:
            self._budget.begin()
        self._open(round_number, shared, accepted)
        report: dict[str, Any] = {
            "round": round_number,
            "cases": self._cases,
            "restored_rounds": self._restored_rounds,
            IMAGES: images_said(self._all_images()),
        }
        if not self._budget:
            report["validation"] = self._evaluation.of_both("validate")[0]
        self._trainer.run_epochs(self.plan.local_epochs)
        if self._should_stop():
            raise Aborted(f"round {round_number} was given up on request")
        if not self._budget:
            report["train_loss"] = float(self._trainer.state.metrics["train_loss"])
        tensors, self._residual = self.scope.update(self.network, sent=shared, residual=self._residual)
        if self._permit.idle:
            report[IDLE] = 1
        self._permit.end(ROUNDS)
        report["seconds"] = time.perf_counter() - started
        update = Update(tensors, self._said(report, "validation"))
        if self._budget:
            self._budget.charge(round_number, tensors)
        self._save(round_number, KeptAnswer(sent=sent, after=accepted, tensors=tensors, report=update.report.to_json()))
        return update

    def _said(self, report: Mapping[str, Any], *splits: str) -> Report:
        """What of a report leaves."""
        return self._report(self._budget.said(report) if self._budget else report, *splits)

    def _report(self, numbers: Mapping[str, Any], *splits: str) -> Report:
        """The site's numbers as they travel, rounded."""
        return Report.parse(round_report(numbers), form=self.plan.form, splits=splits)

    def rest(self) -> None:
        """Free the trained parameters and the optimiser's state, which the next task sends or reads from the disk.

        Features leave the GPU, and stay where else they are kept. Until then the network's outputs are meaningless.
        """
        self._finished_round = None
        self._residual = {}
        self._resting.rest()

    def _all_images(self) -> str:
        """Kind of the site's images, and of those that it had in earlier rounds."""
        return together([self._origin.kind, *self._earlier_images])

    def finish(self, shared: Mapping[str, np.ndarray], *, images: str = UNKNOWN, accepted: int | None = None) -> Report:
        """Evaluate the last shared tensors with the own private part and store the personal model.

        Where the plan says so, the personal model is trained further first, all of it. The shared model is that of the
        server in any case, and the report holds numbers alone. Under a budget the private part alone is trained, and
        neither the report nor an error tells what came of it: that is noted in the site's private folder.

        A site whose private part has not been trained, or that has lost what it trained, and trains nothing further
        either, has no personal model: the shared one alone is evaluated, if the method has such a model. It may be
        asked again, and says the same. A personal model of more rounds, from before they were lost, is set aside.

        Args:
            shared: the server's tensors.
            images: kind of all images that have moved them, as the server knows it from all sites.
            accepted: see :meth:`train_round`.

        Returns:
            A report with the metrics of the validation and the test split.

        Raises:
            PolicyError: the site's policy does not allow it.
            Aborted: ``should_stop`` ended the training after the last round, of which nothing is kept.
        """
        started = time.perf_counter()
        self._permit.begin(EVALUATIONS)
        last = self.plan.start_round + self.plan.rounds
        self._claim(last, shared, accepted)
        self._open(last, shared, accepted)
        report: dict[str, Any] = {
            "round": last,
            "cases": self._cases,
            "restored_rounds": self._restored_rounds,
        }
        try:
            self._end(report, started, images=images)
        except Exception as error:
            if self._budget is None or isinstance(error, Aborted):
                raise
            _log.exception("%s has no personal model of %s", self.name, self.plan.experiment)
            note(error, self._private_root)
        said = self._said(report, *REPORTED)
        self._permit.end(EVALUATIONS)
        return said

    def _end(self, report: dict[str, Any], started: float, *, images: str) -> None:
        """Make, evaluate and store the personal model, and complete the report."""
        state = self.network.state_dict()
        received = {key: state[key].clone() for key in self.scope.manifest.down.entries}
        splits = (("validate", "validation"), ("test", "test"))
        alone = self.plan.tunes_shared(self.scope)
        before = {split: self._evaluation.of_shared(split) for split, _ in splits} if alone else {}
        epochs = self.plan.epochs_after if alone or self.scope.keys(Role.PRIVATE) else 0
        tuned = self._fine_tune(epochs) if epochs else {}
        keys = self.scope.keys(Role.PRIVATE)
        personal = epochs > 0 or self._steps.trained(self.network, keys, epoch=self._trainer.state.epoch)
        if not personal:
            _log.warning("%s has not trained its part of %s: no personal model", self.name, self.plan.experiment)
        evidence: dict[str, Tensor] = {}
        scores: dict[str, list[dict[str, Any]]] = {}
        for split, name in splits:
            report[name], kept, scores[name] = self._evaluation.of_both(split, before, personal=personal)
            evidence |= {f"{name}/{key}": value for key, value in kept.items()}
        evidence |= self._evaluation.plain_outputs() if personal else {}
        report["seconds"] = time.perf_counter() - started
        self.store.set_aside_model(self._restored_rounds)
        self.store.save_final(
            shared=received,
            private=self.scope.private_state(self.network),
            tuned=tuned,
            record=self._report(report, *REPORTED).to_json(),
            origin=replace(self._origin, kind=self._all_images()),
            shared_origin=images if self.scope.manifest.up.entries else None,
        )
        self.store.save_evidence(evidence)
        self.store.save_scores(scores["test"])

    def _fine_tune(self, epochs: int) -> dict[str, Tensor]:
        """Train the personal model further, with a new optimiser; returns what of the shared parameters it made.

        The learning rate begins anew, see :class:`monai_fedlora.engines.schedule.WarmupCosine`.
        """
        self._optimiser.state.clear()
        self._tuner.set_epoch(self.plan.total_epochs)
        still = self._budget and not self.plan.tunes_shared(self.scope)
        with self._budget.private_alone(self.network) if self._budget and still else nullcontext():
            self._tuner.run_epochs(epochs)
            if self._should_stop():
                raise Aborted("the training after the last round was given up on request")
            shared = set(self.scope.keys(Role.SHARED))
            moved = ((name, p) for name, p in self.network.named_parameters() if name in shared and p.requires_grad)
            return {name: parameter.detach().clone() for name, parameter in moved}

    def _claim(self, round_number: int, shared: Mapping[str, np.ndarray], accepted: int | None) -> str:
        """Take the folder for a task, once it is known to be one; return the hash of what the server has sent."""
        self.scope.manifest.down.check(shared)
        if accepted is not None and not (type(accepted) is int and NEVER <= accepted < round_number):
            raise PrivacyError(
                f"the server says that its last accepted answer of {self.name} is of round {accepted!r:.20}, and asks "
                f"for round {round_number}; it must be of an earlier one"
            )
        self.store.claim()
        self.store.settle(accepted, round_number)
        return payload_digest(shared)

    def _open(self, round_number: int, shared: Mapping[str, np.ndarray], accepted: int | None) -> None:
        """Put the server's tensors beside the private ones that this round starts from."""
        self._resting.wake()
        self._restore(round_number, accepted)
        self._finished_round = None
        self.scope.load_shared(self.network, shared)
        self.method.begin_round(self.network, round_number)
        for name, parameter in self.network.named_parameters():
            if self.method.starts_over(name, self.network):
                self._optimiser.state.pop(parameter, None)
                self._residual = {key: value for key, value in self._residual.items() if key != name}

    def _restore(self, round_number: int, accepted: int | None) -> None:
        """Bring private tensors, optimiser and counters to the state this round starts from."""
        first = round_number if accepted is None else accepted + 1
        if self._finished_round == first - 1 and first > 0:
            self._restored_rounds = first
            return
        if round_number == 0:
            self.store.set_aside()
        state = self.store.load_before(first)
        self._restored_rounds = state.round + 1 if state else 0
        self._earlier_images = (state.images,) if state else ()
        self.scope.load_private(self.network, state.private if state else self._initial_private)
        self._residual = {key: value.numpy() for key, value in state.residual.items()} if state else {}
        self._optimiser.state.clear()
        self._trainer.set_epoch(state.epoch if state else 0)
        if state:
            load_optimiser(self._optimiser, self.network, state.optimiser)

    def _save(self, round_number: int, answer: KeptAnswer) -> None:
        self.store.save(
            SiteState(
                round=round_number,
                epoch=self._trainer.state.epoch,
                private=self.scope.private_state(self.network),
                optimiser=optimiser_tensors(self._optimiser, self.network),
                residual={key: torch.from_numpy(value) for key, value in self._residual.items()},
                images=self._all_images(),
            ),
            answer,
        )
        self._finished_round = round_number


def _terminate_if(engine: Any, should_stop: Callable[[], bool]) -> None:
    if should_stop():
        engine.terminate()
