"""Train the shared part of a network so that what it has learnt hides every single patient."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, Sampler

from monai_fedlora.engines.dataset import PrepareCases, collate_cases
from monai_fedlora.engines.distributed import world_size
from monai_fedlora.engines.features import Run, cut
from monai_fedlora.engines.orders import in_order_of_epoch, targets_in_order_of_epoch
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.methods.base import Method, Penalty
from monai_fedlora.privacy.clipping import added, clipped_sum, noised_mean
from monai_fedlora.privacy.gradients import unit_gradients
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.randomness import Randomness

_log = logging.getLogger(__name__)


class PoissonSampler(Sampler[list[int]]):
    """Batches of all images of patients who were drawn independently of each other; some batches may be empty.

    Args:
        units: a number for every case, the same for all of one patient.
        mechanism: of an epoch.
        randomness: of the site.

    Attributes:
        sizes: number of images of each patient in the batch that was drawn last.
    """

    def __init__(self, units: Sequence[int], *, mechanism: Mechanism, randomness: Randomness) -> None:
        members: dict[int, list[int]] = {}
        for case, unit in enumerate(units):
            members.setdefault(unit, []).append(case)
        self._members = list(members.values())
        self._mechanism = mechanism
        self._randomness = randomness
        self.sizes: list[int] = []

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self._mechanism.steps):
            drawn = self._randomness.drawn(len(self._members), rate=self._mechanism.sample_rate)
            chosen = [self._members[place] for place in drawn]
            self.sizes = [len(cases) for cases in chosen]
            yield [case for cases in chosen for case in cases]

    def __len__(self) -> int:
        return self._mechanism.steps


class NoisedTrainer(CaseTrainer):
    """Train with DP-SGD (Abadi et al., CCS 2016, algorithm 1); a step is one of the optimiser on a noised gradient.

    The network computes without its private part, so that a patient's gradient depends on no other patient but through
    what was noised before. In a view with a private part one patient would change every other's clipped gradient, and
    the noise would hide nobody. Each patient's gradient of all shared parameters is clipped as one vector, the sum of
    those drawn gets noise, and is divided by the number that was expected. Class weights, which are fixed before, scale
    clipped gradients, relative to the largest of them, so that the limit holds. What else the optimiser adds depends on
    parameters alone. The seeds of a plan decide neither who is drawn nor the noise.

    Args:
        trainer: gives network, cases, loss, optimiser and precision; its handlers, batches and clipping are not used.
        method: attached to the network; what it adds to the loss counts where nothing of it is private, and is that of
            parameters alone.
        shared: names of the parameters that train and leave the site; all others stay as they are.
        mechanism: of one epoch.
        clip: largest L2 norm of one patient's gradient.
        expected: number of patients in a step on average, as everybody knows it.
        units: a number for every case of the trainer, the same for all of one patient.
        randomness: of the site.
        handlers: attached to this engine.

    Raises:
        ConfigError: the trainer has another kind of cases, several processes or a compiled network.
        PrivacyError: the method has no view without private parts; or, in its first step, the one that it has is none.
    """

    def __init__(
        self,
        trainer: CaseTrainer,
        *,
        method: Method,
        shared: Collection[str],
        mechanism: Mechanism,
        clip: float,
        expected: float,
        units: Sequence[int],
        randomness: Randomness,
        handlers: Sequence[Any] = (),
    ) -> None:
        if (why := method.why_not_noised) is not None:
            raise PrivacyError(f"{method.name} cannot keep a budget: {why}")
        if world_size() > 1 or trainer.network._compiled_call_impl is not None:
            raise ConfigError("gradients of single patients are computed in one process and without a compiler")
        dataset = getattr(trainer.data_loader, "dataset", None)
        if dataset is None or len(dataset) != len(units):
            raise ConfigError("under a budget a bundle trains on a data set whose cases can be drawn by patient")
        self._method = method
        self._sampler = PoissonSampler(units, mechanism=mechanism, randomness=randomness)
        self._mechanism, self._clip, self._expected = mechanism, clip, expected
        self._randomness = randomness
        self._unusable = 0
        self._checked = False
        named = dict(trainer.network.named_parameters())
        self._shared = {name: named[name] for name in shared}
        every = [name for name, p in trainer.network.named_parameters(remove_duplicate=False) if p.requires_grad]
        self._tied = len(every) > sum(p.requires_grad for p in named.values())
        self._private = any(p.requires_grad and name not in self._shared for name, p in named.items())
        self._penalty: Penalty | None = None
        self._weights: Tensor | None = None
        super().__init__(
            device=trainer.state.device,
            max_epochs=trainer.state.max_epochs,
            train_data_loader=DataLoader(dataset, batch_sampler=self._sampler, collate_fn=collate_cases),
            network=trainer.network,
            optimizer=trainer.optimizer,
            loss_function=trainer.loss_function,
            seed=trainer.seed,
            mixed_precision=trainer._precision,
            deterministic=trainer._deterministic,
            inferer=trainer.inferer,
            prepare_batch=trainer.prepare_batch,
            train_handlers=handlers,
        )

    def run(self) -> None:  # type: ignore[override]
        """See :meth:`CaseTrainer.run`.

        Raises:
            ConfigError: a class weight of the loss is no positive number; no patient decides that.
        """
        self._weights = _relative(getattr(self.loss_function, "weight", None))
        with ExitStack() as stack:
            context = None if self._private else self._method.penalty(self.network)
            self._penalty = stack.enter_context(context) if context else None
            super().run()
        if self._unusable:
            _log.warning(
                "gradients of %d patients, counted in every step, were not finite and counted as zero; see whether "
                "their images are damaged, or lower learning_rate",
                self._unusable,
            )

    def _iteration(self, engine: Any, batchdata: Any) -> dict:
        self._set_modes(epoch_starts=(self.state.iteration - 1) % self.state.epoch_length == 0)
        self.optimizer.zero_grad(set_to_none=True)
        view = self._method.shared_only(self.network)
        assert view is not None
        with view:
            sums = added(self._sums(batchdata), self._shared)
        gradients = noised_mean(
            sums,
            clip=self._clip,
            noise_multiplier=self._mechanism.noise_multiplier,
            expected=self._expected,
            randomness=self._randomness,
        )
        for name, parameter in self._shared.items():
            parameter.grad = gradients[name].to(parameter.dtype)
        if self._penalty is not None:
            self._penalty().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {}

    def _sums(self, batchdata: Any) -> Iterator[Mapping[str, Tensor]]:
        """Sums of the clipped gradients of the batch's patients, some at a time."""
        if not batchdata:
            return
        images, labels = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        if isinstance(self.prepare_batch, PrepareCases) and self.prepare_batch.turns:
            labels = targets_in_order_of_epoch(labels, images, batchdata, self.state.epoch)
        images = in_order_of_epoch(images, batchdata, self.state.epoch)
        parameters = {name: parameter.detach() for name, parameter in self._shared.items()}
        with self._autocast():
            inputs, run = cut(self.inferer, images, self.network)
            self._check_view(run, inputs)
            for found in unit_gradients(
                self._loss_through(run),
                parameters,
                inputs=inputs,
                targets=labels,
                sizes=self._sampler.sizes,
                weights=None if self._weights is None else self._weights[labels],
            ):
                self._mean.add(float(found.losses.mean()), len(found.losses))
                clipped, unusable = clipped_sum(found.gradients, self._clip, found.weights)
                self._unusable += unusable
                yield clipped

    def _check_view(self, run: Run, inputs: Sequence[Tensor]) -> None:
        """Refuse, once, a method in whose view something private still counts, whatever it says of itself.

        Looked at is what the network makes of noise, with two draws of its private parameters, and others than zero
        throughout, as B is at first; so that nothing of a patient decides.

        Raises:
            PrivacyError: the outputs differ, or are no numbers, of which nothing can be told.
        """
        if not self._private or self._checked:
            return
        draw = torch.Generator().manual_seed(0)

        def noise(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=draw).to(like)

        named = {name: noise(p.detach()) for name, p in self.network.named_parameters() if p.requires_grad}
        private = {name: noise(value) for name, value in named.items() if name not in self._shared}
        images = [noise(one[:1]) for one in inputs]
        device = self.state.device
        found = []
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for held in (named, named | private):
                torch.manual_seed(0)  # dropout leaves out the same
                found.append(run(images, lambda *args, held=held: self._called(held, args)))
        if not torch.equal(*found):
            raise PrivacyError(
                f"{self._method.name} cannot keep a budget: in the view in which its shared part trains, parameters "
                "that stay in the site change what the network computes, so that one patient would change the "
                "gradients of all others through them; mend its shared_only, or let why_not_noised say so"
            )
        self._checked = True

    def _loss_through(self, run: Run) -> Any:
        """A patient's mean loss without class weights, as a function of the shared parameters."""
        of_images: Any = self.loss_function
        if getattr(of_images, "weight", None) is not None:
            of_images = copy.deepcopy(of_images)
            of_images.weight = None

        def loss(parameters: Mapping[str, Tensor], inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
            logits = run(inputs, lambda *args: self._called(dict(parameters), args))
            mean: Tensor = of_images(logits, targets).mean()
            return mean

        return loss

    def _called(self, parameters: dict[str, Tensor], inputs: tuple[Any, ...]) -> Any:
        return functional_call(self.network, parameters, inputs, tie_weights=self._tied)  # to look for ties takes long


def _relative(weights: Tensor | None) -> Tensor | None:
    """Class weights over the largest of them, from above 0 to 1, whoever is in a batch; None for none."""
    if weights is None:
        return None
    if not bool(((weights > 0) & weights.isfinite()).all()):
        raise ConfigError(f"class_weights is {weights.tolist()}; under a budget each must be a positive number")
    return weights / weights.max()
