"""One hospital in a federation: its own data, network and private state, trained a round at a time.

The same class serves the NVFlare executor, the in-process simulation and the tests. The site's own installed bundle
builds what trains; a plan may only change the numbers listed in
:data:`monai_fedlora.federated.training_settings.TRAINING_SETTINGS`. Data and network come from a
:class:`~monai_fedlora.federated.materials.Source`.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_fedlora.data.cases import SPLITS
from monai_fedlora.data.origin import UNKNOWN, together
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.evidence import plain_outputs, run_and_keep, scoring
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.method import check_phases
from monai_fedlora.engines.seeds import mix
from monai_fedlora.errors import Aborted, ConfigError, FedLoraError, WeightsError
from monai_fedlora.federated.materials import INSTALLED, Source, put_into
from monai_fedlora.federated.one_backbone import tensors_by_key
from monai_fedlora.federated.permit import EVALUATIONS, ROUNDS, Permit
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_policy import Policy, site_policy
from monai_fedlora.federated.site_state import SiteState, SiteStore
from monai_fedlora.federated.update import Update
from monai_fedlora.out_of_memory import TRAINING, memory_told
from monai_fedlora.resources import bundle_configs
from monai_fedlora.scope import Role
from monai_fedlora.site_report import (
    IMAGES,
    PERSONAL,
    REPORTED,
    SHARED,
    Report,
    images_said,
    round_metrics,
    round_report,
)
from monai_fedlora.tasks.task import OUTPUTS


class Site:
    """A member of a federation.

    Args:
        name: the site's name in the plan.
        plan: the experiment.
        private_root: folder for private state, see :class:`SiteStore`.
        source: of the site's data and network.
        should_stop: polled after every batch; the round is given up when it returns True.
        policy: returns the site's own limits, which are asked before every message.

    Raises:
        PolicyError: the site's policy does not allow the job; nothing is trained and nothing leaves.
        ConfigError: the site's classes are not the plan's, or its cases make fewer steps than the method has phases.
        DataError, WeightsError: the site's data or backbone cannot be used.
    """

    def __init__(
        self,
        *,
        name: str,
        plan: Plan,
        private_root: str | os.PathLike[str],
        source: Source = INSTALLED,
        should_stop: Callable[[], bool] = lambda: False,
        policy: Callable[[], Policy] = site_policy,
    ) -> None:
        self.name = name
        self.plan = plan
        self._permit = Permit(read=policy, plan=plan, site=name, private_root=private_root)
        self._permit.check()
        self.method = plan.site_method(name)
        self.store = SiteStore(root=private_root, plan=plan, site=name)
        self._config = ConfigParser()
        self._config.read_config(bundle_configs(plan.bundle))
        self._configure()
        cases = source.furnish(self._config, plan=plan, site=name)
        self._units = {split: unit_numbers(cases.cases(split)) for split in SPLITS}
        self._origin = cases.origin
        self._cases = len(cases.training)
        self._permit.trains_on(cases.training)
        self.network: nn.Module = self._bundled("network")
        self.scope = plan.scope(self.network)
        self._permit.sends(self.scope.manifest)
        self._optimiser: torch.optim.Optimizer = self._bundled("optimizer")
        self._trainer = self._bundled("train::trainer")
        self._inferers: set[FrozenInferer] = set()
        self._uses(self._trainer.inferer)
        self._should_stop = should_stop
        self._trainer.add_event_handler(Events.ITERATION_COMPLETED, _terminate_if, should_stop)
        self._check_steps()
        self._permit.trains_on(cases.training, getattr(self._trainer.loss_function, "weight", None))
        self._permit.trains_with(self._trainer, self._optimiser, self.network)
        self._initial_private = self.scope.private_state(self.network)
        self._finished_round: int | None = None
        self._restored_rounds = 0
        self._earlier_images: tuple[str, ...] = ()
        self._residual: Mapping[str, np.ndarray] = {}

    def _check_steps(self) -> None:
        """Refuse a plan of which this site would train no round, so that its initial values are never scored."""
        batch = self._config.get("batch_size")
        try:
            check_phases(
                self.method.phases(self.network),
                cases=self._cases,
                batch_size=batch,
                accumulation_steps=self._config.get("accumulation_steps", 1),
                epochs=self.plan.local_epochs,
            )
        except ConfigError as error:
            raise ConfigError(f"{self.name} has {self._cases} training cases, in batches of {batch}: {error}") from None

    def _configure(self) -> None:
        """Put the plan's numbers into the bundle's configuration."""
        overrides: dict[str, Any] = {
            "site": self.name,
            "output_dir": str(self.store.folder),
            "size": self.plan.size,
            "backbone_sha256": self.plan.backbone_sha256,
            "method": self.plan.method,
            "method_args": dataclasses.asdict(self.method),
            "epochs": self.plan.total_epochs,
            "seed": mix(self.plan.seed, self.name),
            "trackers": [],
            "save_checkpoints": False,
            "early_stopping_patience": 0,
            "val_interval": 0,
            "show_progress": False,
            **self.plan.task_of.settings,
            **self.plan.training,
        }
        if self.plan.prompts is not None:
            overrides["prompts"] = list(self.plan.prompts.templates)
            overrides["class_texts"] = dict(self.plan.prompts.class_texts)
        put_into(self._config, overrides, bundle=self.plan.bundle)

    def _bundled(self, part: str) -> Any:
        """Return an object of the bundle; an error that is meant to be read comes out of the parser's own."""
        try:
            with memory_told(f"building the {part} of {self.name}", *TRAINING):
                return self._config.get_parsed_content(part)
        except RuntimeError as error:
            cause = error.__cause__
            while cause is not None:
                if isinstance(cause, FedLoraError):
                    raise cause from None
                cause = cause.__cause__
            raise

    def train_round(self, round_number: int, shared: Mapping[str, np.ndarray]) -> Update:
        """Evaluate what the server sent, train on the site's data, keep the private part, return the shared one.

        What the encoding of the shared one leaves out is kept with the private part, and added the next time.

        Args:
            round_number: the server's round.
            shared: the server's tensors; anything but exactly the manifest is refused and changes nothing.

        Raises:
            PrivacyError: undeclared tensors from the server, or private state of another experiment.
            PolicyError: the site's policy does not allow the round, or a message after so few steps.
            DataError: a patient file turned out to be unusable.
            Aborted: ``should_stop`` ended the round, of which nothing is kept.
            Busy: another process uses the site's private folder.
        """
        started = time.perf_counter()
        self._permit.begin(ROUNDS)
        self._open(round_number, shared)
        report: dict[str, Any] = {
            "round": round_number,
            "cases": self._cases,
            "restored_rounds": self._restored_rounds,
            IMAGES: images_said(self._all_images()),
            "validation": self.evaluate("validate"),
        }
        self._trainer.run_epochs(self.plan.local_epochs)
        if self._should_stop():
            raise Aborted(f"round {round_number} was given up on request")
        report["train_loss"] = float(self._trainer.state.metrics["train_loss"])
        tensors, self._residual = self.scope.update(self.network, sent=shared, residual=self._residual)
        self._permit.end(ROUNDS)
        self._save(round_number)
        report["seconds"] = time.perf_counter() - started
        return Update(tensors, self._report(report, "validation"))

    def _report(self, numbers: Mapping[str, Any], *splits: str) -> Report:
        """The site's numbers as they travel, rounded."""
        return Report.parse(round_report(numbers), form=self.plan.form, splits=splits)

    def rest(self) -> None:
        """Free the trained parameters and the optimiser's state, which the next task sends or reads from the disk.

        Features leave the GPU, and stay where else they are kept. Until then the network's outputs are meaningless.
        """
        self._finished_round = None
        self._residual = {}
        self._optimiser.state.clear()
        self._optimiser.zero_grad(set_to_none=True)
        for inferer in self._inferers:
            inferer.rest()
        for tensor in self._brought():
            tensor.data = tensor.data.new_zeros(()).expand(tensor.shape)

    def _uses(self, inferer: Any) -> None:
        if isinstance(inferer, FrozenInferer):
            self._inferers.add(inferer)

    def _wake(self) -> None:
        """Allocate again what :meth:`rest` has freed."""
        for tensor in self._brought():
            if tensor.untyped_storage().nbytes() < tensor.nbytes:
                tensor.data = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    def _brought(self) -> list[Tensor]:
        """The network's tensors that every task overwrites first."""
        places = tensors_by_key(self.network)
        return [places[key] for key in (*self.scope.keys(Role.PRIVATE), *self.scope.manifest.down.entries)]

    def _all_images(self) -> str:
        """Kind of the site's images, and of those that it had in earlier rounds."""
        return together([self._origin.kind, *self._earlier_images])

    def finish(self, shared: Mapping[str, np.ndarray], *, images: str = UNKNOWN) -> Report:
        """Evaluate the last shared tensors with the own private part and store the personal model.

        Args:
            shared: the server's tensors.
            images: kind of all images that have moved them, as the server knows it from all sites.

        Returns:
            A report with the metrics of the validation and the test split.

        Raises:
            PolicyError: the site's policy does not allow it.
        """
        started = time.perf_counter()
        self._permit.begin(EVALUATIONS)
        last = self.plan.start_round + self.plan.rounds
        self._open(last, shared)
        report: dict[str, Any] = {
            "round": last,
            "cases": self._cases,
            "restored_rounds": self._restored_rounds,
        }
        evidence: dict[str, Tensor] = {}
        scores: dict[str, list[dict[str, Any]]] = {}
        for split, name in (("validate", "validation"), ("test", "test")):
            report[name], kept, scores[name] = self._evaluate_and_keep(split)
            evidence |= {f"{name}/{key}": value for key, value in kept.items()}
        evidence |= self._plain_outputs()
        report["seconds"] = time.perf_counter() - started
        said = self._report(report, *REPORTED)
        self._permit.end(EVALUATIONS)
        state = self.network.state_dict()
        self.store.save_final(
            shared={key: state[key] for key in self.scope.manifest.down.entries},
            private=self.scope.private_state(self.network),
            record=said.to_json(),
            origin=replace(self._origin, kind=self._all_images()),
            shared_origin=images if self.scope.manifest.up.entries else None,
        )
        self.store.save_evidence(evidence)
        self.store.save_scores(scores["test"])
        return said

    def _open(self, round_number: int, shared: Mapping[str, np.ndarray]) -> None:
        """Put the server's tensors beside the private ones that this round starts from."""
        self.scope.manifest.down.check(shared)
        self.store.claim()
        self._wake()
        self._restore(round_number)
        self._finished_round = None
        self.scope.load_shared(self.network, shared)
        self.method.begin_round(self.network, round_number)
        for name, parameter in self.network.named_parameters():
            if self.method.starts_over(name, self.network):
                self._optimiser.state.pop(parameter, None)
                self._residual = {key: value for key, value in self._residual.items() if key != name}

    def evaluate(self, split: str) -> dict[str, dict[str, Any]]:
        """Metrics on a split ("validate" or "test"), of the personal model and, where there is one, the shared one."""
        return self._evaluate_and_keep(split)[0]

    def _evaluate_and_keep(
        self, split: str
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor], list[dict[str, Any]]]:
        """The metrics of both views, logits and labels of the personal one and logits of the shared one, and scores."""
        metrics, kept, scores = self._run_evaluator(split)
        views, rows = {PERSONAL: metrics}, _of_view(PERSONAL, scores)
        context = self.method.shared_only(self.network)
        if context is not None:
            with context:
                views[SHARED], shared, scores = self._run_evaluator(split)
            rows += _of_view(SHARED, scores)
            if "logits" in shared:
                kept = {**kept, "shared_logits": shared["logits"]}
        return views, kept, rows

    def _run_evaluator(self, split: str) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, Any]]]:
        """Metrics, logits and labels, and what the task says of every case of the test split."""
        evaluator = self._bundled(f"{split}::evaluator")
        if len(evaluator.data_loader) == 0:
            return {}, {}, []
        self._uses(evaluator.inferer)
        task, rows = self.plan.task_of, list[dict[str, Any]]()
        with ExitStack() as stack:
            if split == "test" and task.scores is not None:
                rows = stack.enter_context(scoring(evaluator, _scored_by(task.scores, self.plan.classes)))
            if OUTPUTS in task.sections:
                kept = run_and_keep(evaluator)
            else:
                evaluator.run()
                kept = {}
        return round_metrics(evaluator.state.metric_details), kept, rows

    def _plain_outputs(self) -> dict[str, Tensor]:
        """What the personal model says of the cases of every split without augmentation, and whose images they are."""
        found: dict[str, Tensor] = {}
        if OUTPUTS not in self.plan.task_of.sections:
            return found
        precision: Any = self._bundled("mixed_precision") if "mixed_precision" in self._config.get() else "off"
        for part, name in (("train", "training"), ("validate", "validation"), ("test", "test")):
            dataset = self._bundled(f"{part}::dataset")
            if not isinstance(dataset, CaseDataset):  # a hospital's own bundle may train on something else
                continue
            outputs = plain_outputs(
                self.network,
                dataset,
                inferer=self._bundled("validate::inferer"),
                device=self._bundled("device"),
                batch_size=self._bundled("batch_size"),
                mixed_precision=precision,
            )
            found |= {f"{name}/{key}": value for key, value in outputs.items()}
            if len(dataset) == len(self._units[name]):
                found[f"{name}/units"] = torch.tensor(self._units[name], dtype=torch.int64)
        return found

    def _restore(self, round_number: int) -> None:
        """Bring private tensors, optimiser and counters to the state this round starts from."""
        if self._finished_round == round_number - 1 and round_number > 0:
            self._restored_rounds = round_number
            return
        if round_number == 0:
            self.store.set_aside()
        state = self.store.load_before(round_number)
        self._restored_rounds = state.round + 1 if state else 0
        self._earlier_images = (state.images,) if state else ()
        self.scope.load_private(self.network, state.private if state else self._initial_private)
        self._residual = {key: value.numpy() for key, value in state.residual.items()} if state else {}
        self._optimiser.state.clear()
        self._trainer.set_epoch(state.epoch if state else 0)
        if state:
            self._load_optimiser(state.optimiser)

    def _save(self, round_number: int) -> None:
        self.store.save(
            SiteState(
                round=round_number,
                epoch=self._trainer.state.epoch,
                private=self.scope.private_state(self.network),
                optimiser=self._optimiser_tensors(),
                residual={key: torch.from_numpy(value) for key, value in self._residual.items()},
                images=self._all_images(),
            )
        )
        self._finished_round = round_number

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.network.named_parameters()}
        return {
            f"{names[parameter]}/{slot}": torch.as_tensor(value)
            for parameter, slots in self._optimiser.state.items()
            for slot, value in slots.items()
        }

    def _load_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the optimiser what it had stored, each tensor where the optimiser keeps it.

        Raises:
            WeightsError: a parameter is unknown, or its state is of another shape or lacks what others have.
        """
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        optimised = [parameter for group in self._optimiser.param_groups for parameter in group["params"]]
        numbers = {names[parameter]: number for number, parameter in enumerate(optimised)}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, slot = key.rpartition("/")
            if name not in numbers:
                raise WeightsError(f"the stored optimiser state names {name!r}, which this network does not have")
            if value.dim() and value.shape != optimised[numbers[name]].shape:
                raise WeightsError(f"the stored optimiser state {key!r} is {tuple(value.shape)}, unlike its parameter")
            state.setdefault(numbers[name], {})[slot] = value
        slots = {slot for found in state.values() for slot in found}
        for number, found in state.items():
            if missing := sorted(slots - found.keys()):
                name = names[optimised[number]]
                raise WeightsError(f"the stored optimiser state of {name!r} lacks {', '.join(missing)}")
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})


def _scored_by(
    scores: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]], names: Sequence[str]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    return lambda output: scores(output, names)


def _of_view(view: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"view": view, **row} for row in rows]


def _terminate_if(engine: Any, should_stop: Callable[[], bool]) -> None:
    if should_stop():
        engine.terminate()
