"""The training engine: MONAI's, with bf16 on any device, clipping, and epochs that repeat to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from monai_fedlora.engines.compiling import keep_gradients
from monai_fedlora.engines.dataset import CaseDataset, CaseView, PrepareCases, prepare_cases
from monai_fedlora.engines.distributed import rank, share_of_step, summed, unwrap
from monai_fedlora.engines.features import FrozenInferer, unopened_images
from monai_fedlora.engines.modes import modes_of, set_training_mode
from monai_fedlora.engines.orders import in_order_of_epoch, targets_in_order_of_epoch
from monai_fedlora.engines.precision import Precision, autocast, computing
from monai_fedlora.engines.sampler import CaseSampler
from monai_fedlora.engines.seeds import repeating_kernels, seed_everything
from monai_fedlora.errors import ConfigError, DataError, Diverged, FedLoraError
from monai_fedlora.out_of_memory import TRAINING, memory_told


class CaseTrainer(SupervisedTrainer):
    """Train a network on batches with ``image``, targets such as ``label``, and ``subject``.

    Differences from MONAI's engine: automatic mixed precision is bf16 and works on every device; frozen
    modules stay in evaluation mode (:func:`set_training_mode`); each epoch starts by seeding everything from
    (seed, epoch), so that a process that continues at an epoch computes what an uninterrupted one would have;
    a loss or gradient that is not finite stops training with the names of the subjects. Where nothing of the network
    trains, an epoch computes the loss alone.

    Cines whose files do not tell an orientation are shown in another order of their axes in every epoch
    (:mod:`monai_fedlora.engines.orders`).

    A handler of ``IterationEvents.LOSS_COMPLETED`` may replace ``engine.state.output["loss"]``, for instance
    to add a penalty. Behind the backward pass it lies on the processor: the engine waits once in an iteration for a
    GPU, for the loss and the norm of the gradient together, and whoever logs the loss need not wait again. The mean
    loss of an epoch is in ``engine.state.metrics["train_loss"]``. The number of features of frozen blocks that found no
    room in an epoch, and are computed again in the next one that shows their images, is in ``"features_not_kept"``
    where there are any.

    Args:
        device: where to compute.
        max_epochs: epochs of the first :meth:`run`.
        train_data_loader: batches; a :class:`CaseSampler` and a :class:`CaseDataset` in it are told the epoch.
        network: maps (B, ...) images to logits (B, C, ...); may be wrapped for several processes.
        optimizer: over the trainable parameters.
        loss_function: of logits and targets.
        seed: of everything random during training.
        mixed_precision: "off", "tf32" or "bf16", see :func:`~monai_fedlora.engines.precision.autocast`.
        deterministic: repeat to the bit on a GPU too, see :func:`~monai_fedlora.engines.seeds.repeating_kernels`.
        max_grad_norm: clip the gradient to this L2 norm; None turns it off.
        accumulation_steps: batches per optimizer step; the last step of an epoch may average fewer.
        inferer, postprocessing, key_train_metric, additional_metrics, train_handlers, prepare_batch: as in
            MONAI.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable,
        seed: int = 0,
        mixed_precision: Precision = "off",
        deterministic: bool = False,
        max_grad_norm: float | None = None,
        accumulation_steps: int = 1,
        inferer: Inferer | None = None,
        postprocessing: Any | None = None,
        key_train_metric: dict[str, Any] | None = None,
        additional_metrics: dict[str, Any] | None = None,
        train_handlers: Sequence | None = None,
        prepare_batch: Callable = prepare_cases,
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm is {max_grad_norm}; give a positive norm, or null for no clipping")
        if not isinstance(accumulation_steps, int) or accumulation_steps < 1:
            raise ConfigError(f"accumulation_steps is {accumulation_steps!r}; it must be a whole number above 0")
        self.seed = seed
        self.max_grad_norm = max_grad_norm
        self._autocast = autocast(device, mixed_precision)
        self._precision: Precision = mixed_precision
        self._deterministic = deterministic
        self._trains = any(parameter.requires_grad for parameter in network.parameters())
        self._training: list[nn.Module] = []
        self._modes: list[bool] = []
        self._mean = _MeanLoss()
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            inferer=inferer,
            postprocessing=postprocessing,
            key_train_metric=key_train_metric,
            additional_metrics=additional_metrics,
            train_handlers=[_EpochStart(), self._mean, _NotKept(), *(train_handlers or ())],
            prepare_batch=prepare_batch,
            accumulation_steps=accumulation_steps,
            decollate=bool(postprocessing or key_train_metric),
            optim_set_to_none=True,
            non_blocking=True,
        )

    def run(self) -> None:  # type: ignore[override]
        """Train from ``state.epoch`` up to ``state.max_epochs``.

        Raises:
            FedLoraError: that many epochs are already done.
            OutOfMemory: memory ran out.
        """
        if self.state.epoch >= self.state.max_epochs:
            raise FedLoraError(
                f"training is complete at epoch {self.state.epoch} of {self.state.max_epochs}; "
                "use run_epochs to continue"
            )
        with (
            memory_told(f"training on {self.state.device}", *TRAINING),
            computing(self.network, self._precision),
            repeating_kernels(enabled=self._deterministic),
            unopened_images(self),
        ):
            super().run()

    def run_epochs(self, epochs: int) -> None:
        """Train for ``epochs`` more epochs; federated rounds re-enter here."""
        self.state.max_epochs = self.state.epoch + epochs
        self.run()

    def set_epoch(self, epoch: int) -> None:
        """Continue after ``epoch`` finished epochs, as if this process had run them."""
        self.state.epoch = epoch
        self.state.iteration = epoch * self.state.epoch_length

    def _iteration(self, engine: Any, batchdata: Any) -> dict:
        images, labels = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        if isinstance(self.prepare_batch, PrepareCases) and self.prepare_batch.turns:
            labels = targets_in_order_of_epoch(labels, images, batchdata, self.state.epoch)
        images = in_order_of_epoch(images, batchdata, self.state.epoch)
        self.state.output = {Keys.LABEL: labels, **({Keys.IMAGE: images} if isinstance(images, Tensor) else {})}
        place = (self.state.iteration - 1) % self.state.epoch_length
        first = place - place % self.accumulation_steps
        last = min(first + self.accumulation_steps, self.state.epoch_length) - 1

        self._set_modes(epoch_starts=place == 0)
        if place == first:
            self.optimizer.zero_grad(set_to_none=True)
        with self._synchronised(place == last):
            with self._autocast():
                self.state.output[Keys.PRED] = self.inferer(images, self.network)  # type: ignore[arg-type]
                self.fire_event(IterationEvents.FORWARD_COMPLETED)
                counted = len(labels) - self._repeated(place)
                share = share_of_step(self.loss_function, labels[:counted])
                self.state.output[Keys.LOSS] = self._loss(self.state.output[Keys.PRED], labels, counted)
                self.fire_event(IterationEvents.LOSS_COMPLETED)
            loss = self.state.output[Keys.LOSS]
            if self._trains:
                (loss * share.weight if share else loss).div(last - first + 1).backward()
                if place < last:
                    keep_gradients(unwrap(self.network))
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        found = [loss.detach()]
        if place == last and self.max_grad_norm is not None and self._trains:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            found.append(nn.utils.clip_grad_norm_(parameters, self.max_grad_norm))
        values = torch.stack([*found, *(share or ())]).tolist()  # what an iteration waits for
        self._check(values[: len(found)], batchdata, images)
        self.state.output[Keys.LOSS] = torch.tensor(values[0], dtype=loss.dtype)
        weight, cases = values[-2:] if share else (1.0, len(images))
        self._mean.add(values[0] * weight, cases)
        if place == last:
            self.optimizer.step()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _repeated(self, place: int) -> int:
        """How many cases at the end of a batch are another process's, so that all have as many; no loss counts them."""
        sampler = getattr(self.data_loader, "sampler", None)
        return sampler.repeated if isinstance(sampler, CaseSampler) and place == self.state.epoch_length - 1 else 0

    def _loss(self, logits: Tensor, labels: Tensor, counted: int) -> Tensor:
        if counted == len(labels):
            return self.loss_function(logits, labels).mean()
        return self.loss_function(logits[:counted], labels[:counted]).mean() if counted else 0 * logits.sum()

    def _synchronised(self, synchronise: bool) -> Any:
        """Skip the exchange of gradients between processes until the last batch of a step."""
        if isinstance(self.network, DistributedDataParallel) and not synchronise:
            return self.network.no_sync()
        return nullcontext()

    def _set_modes(self, *, epoch_starts: bool) -> None:
        """Set the modes anew where one has changed, or, at the start of an epoch, what trains."""
        if all(module.training for module in self._training) and not (
            epoch_starts and self._modes != modes_of(self.network)
        ):
            return
        self._training = set_training_mode(self.network)
        self._modes = modes_of(self.network)

    def _check(self, found: list[float], batch: Any, images: Tensor | list[CaseView]) -> None:
        if all(map(math.isfinite, found)):
            return
        names = zip(("loss", "gradient"), found, strict=False)
        what, value = next((name, value) for name, value in names if not math.isfinite(value))
        subjects = batch.get("subject", ["unknown"]) if isinstance(batch, dict) else ["unknown"]
        place = f"epoch {self.state.epoch}, iteration {self.state.iteration}, subjects "
        message = f"the {what} is {value} at {place}{', '.join(map(str, subjects))}"
        opened = images if isinstance(images, Tensor) else [view.image() for view in images]
        if not all(image.isfinite().all() for image in opened):
            raise DataError(f"{message}: an image holds NaN or infinity; check its file")
        raise Diverged(
            f"{message}: training diverged; lower learning_rate, set max_grad_norm, or turn mixed_precision off"
        )


class _EpochStart:
    """Seed everything from (seed, epoch) and tell the data which epoch it is."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        seed_everything(engine.seed, "epoch", engine.state.epoch, rank())
        loader = engine.data_loader
        for part in (getattr(loader, "sampler", None), getattr(loader, "dataset", None)):
            if isinstance(part, (CaseSampler, CaseDataset, DistributedSampler)):
                part.set_epoch(engine.state.epoch)


class _MeanLoss:
    """Put the epoch's mean loss per case, of all processes, in ``engine.state.metrics["train_loss"]``."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)
        engine.add_event_handler(Events.TERMINATE, self.report)

    def reset(self, engine: Any) -> None:
        self.total, self.cases = 0.0, 0.0

    def add(self, loss: float, cases: float) -> None:
        self.total += loss * cases
        self.cases += cases

    def report(self, engine: Any) -> None:
        if self.cases:
            total, cases = summed([self.total, self.cases], device=engine.state.device)
            engine.state.metrics["train_loss"] = total / cases


class _NotKept:
    """Put the number of features that found no room in ``engine.state.metrics["features_not_kept"]``, if any did."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        engine.state.metrics.pop("features_not_kept", None)
        if isinstance(engine.inferer, FrozenInferer) and (number := engine.inferer.tell_left_out()):
            engine.state.metrics["features_not_kept"] = number


ClassificationTrainer = CaseTrainer
"""Its name in the configurations of bundles of earlier versions."""
