"""Pre-training a backbone on labelled phantoms that are drawn while it runs, whatever they show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_fedlora import files
from monai_fedlora.data.endless import stream_loader
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.pretraining_epochs import pretraining_epochs
from monai_fedlora.networks.pretraining_state import PretrainingState
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.source_digest import TRAINING, source_digest

_HELD_OUT = 7_919_000
"""Added to the seed of the stream, for the phantoms on which the result is measured."""

Stream = Dataset[dict[str, Any]]
Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How well a network reads phantoms that it has not seen; a lesson adds its figures."""

    def to_json(self) -> dict[str, Any]:
        """The figures, rounded to three digits."""
        rounded: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_float=lambda text: round(float(text), 3))
        return rounded


M = TypeVar("M", bound=Measure)


@dataclass(frozen=True, kw_only=True)
class Lesson(Generic[M]):
    """What one kind of phantoms teaches.

    Attributes:
        network: the mean loss of a batch; it holds the backbone, untrained.
        backbones: its parts into which weights to start from are loaded, each what a file of ``state`` holds of it.
        idle: prefixes of the names of those of its parameters that take no part.
        state: what is saved of the network.
        stream: the phantoms of a seed.
        tensors: of an item of the stream; the image first, without a batch axis, as ``network`` takes it.
        changed: a batch of them as it is shown, changed anew each time.
        measure: the first so many phantoms of a stream.
        standardise: what a head reads of the trained backbone, over these images of one each.
        metadata: what the file says of the network and of its objective, beside the settings.
    """

    network: nn.Module
    backbones: tuple[Any, ...]
    idle: tuple[str, ...]
    state: Callable[[], Mapping[str, Tensor]]
    stream: Callable[[int], Stream]
    tensors: Callable[[dict[str, Any]], Tensors]
    changed: Callable[[Tensors, torch.Generator], list[Tensor]]
    measure: Callable[[Stream, int], M]
    standardise: Callable[[Iterable[Tensor]], None]
    metadata: Mapping[str, str]


def pretrain_supervised(
    lesson: Lesson[M],
    *,
    size: str,
    epochs: int,
    phantoms: int,
    views: int,
    batch_size: int,
    lr: float,
    seed: int,
    output: Path,
    device: torch.device,
    start: Path | None = None,
    bf16: bool = False,
    workers: int = 0,
    held_out: int = 200,
    provenance: str = "",
    on_resume: Callable[[int], None] = lambda epochs: None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> tuple[tuple[float, ...], M]:
    """Train, measure on held-out phantoms, and save the backbone in half precision as safetensors.

    Before that, what a linear head reads is standardised over ``held_out`` further phantoms.

    AdamW with betas (0.9, 0.98), weight decay 0.05 on matrices and the gradient's norm clipped to 3; the learning rate
    rises linearly over a tenth of the steps and falls by a cosine to zero. What is reached after each epoch is kept in
    ``<output>.state``; a call with the same settings goes on from there, to the bit on a processor.

    Args:
        lesson: what is taught; its network's weights follow from ``seed``, and it is on ``device``.
        size: the backbone's name.
        epochs: how many, at least 1.
        phantoms: new ones drawn in each epoch.
        views: how often each is shown in its epoch, changed anew each time; drawing costs more than showing.
        batch_size: phantoms in a step.
        lr: the highest learning rate.
        seed: of the phantoms and what is random about showing them.
        output: the file to write.
        device: where to compute.
        start: weights from which the backbone starts, as this function wrote them; None for random ones.
        bf16: compute matrix products and convolutions in bfloat16.
        workers: processes that draw phantoms; 0 draws in this one. The result does not depend on it.
        held_out: phantoms on which the result is measured, and others over which it is standardised.
        provenance: kept in the file's metadata.
        on_resume: called with the number of finished epochs where a training goes on.
        on_epoch: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The mean loss of each epoch, and the measurement.

    Raises:
        ConfigError: a setting is out of range, or the state beside ``output`` is that of other settings, another
            precision or other code, which would draw other phantoms.
        WeightsError: the state is damaged, or ``start`` does not fit.
        OutOfMemory: memory ran out.
    """
    numbers = {"epochs": epochs, "phantoms": phantoms, "views": views, "batch_size": batch_size, "held_out": held_out}
    for name, value in {**numbers, "lr": lr}.items():
        if not value > 0:
            raise ConfigError(f"{name} must be positive, not {value}")
    settings = {name: str(value) for name, value in {"size": size, "lr": lr, "seed": seed, **numbers}.items()}
    started = {}
    if start is not None:
        started["start"] = {load_backbone(part, start).sha256 for part in lesson.backbones}.pop()
    ground = {"precision": "bf16" if bf16 else "float32", "version of the code": source_digest(TRAINING)}
    ground |= {"start": "random weights", **started}
    state = PretrainingState(path=output.with_name(f"{output.name}.state"), settings={**settings, **ground})
    generator = torch.Generator().manual_seed(seed)
    shown = _Shown(
        lesson=lesson,
        stream=lesson.stream(seed),
        phantoms=phantoms,
        views=views,
        batch_size=batch_size,
        workers=workers,
        generator=generator,
    )
    losses = pretraining_epochs(
        shown,
        lesson.network,
        (p for key, p in lesson.network.named_parameters() if not key.startswith(lesson.idle)),
        steps=math.ceil(phantoms / batch_size) * views,
        epochs=epochs,
        lr=lr,
        betas=(0.9, 0.98),
        generator=generator,
        device=device,
        bf16=bf16,
        max_grad_norm=3.0,
        state=state,
        on_resume=on_resume,
        on_epoch=on_epoch,
    )
    measured = lesson.measure(lesson.stream(seed + _HELD_OUT), held_out)
    following, stream = range(epochs * phantoms, epochs * phantoms + held_out), lesson.stream(seed)
    lesson.standardise(lesson.tensors(stream[number])[0][None].to(device) for number in following)
    files.save_tensors(
        output,
        {key: value.half() for key, value in lesson.state().items()},
        {
            **lesson.metadata,
            **settings,
            **started,
            "n_images": str(epochs * phantoms),
            "final_loss": f"{losses[-1]:.6f}",
            "held_out": json.dumps(measured.to_json()),
            "provenance": provenance,
            **({"precision": "bf16"} if bf16 else {}),
        },
    )
    state.remove()
    return losses, measured


class _Shown:
    """Batches of an epoch: every new phantom ``views`` times, changed anew each time, in another order in each pass."""

    def __init__(
        self,
        *,
        lesson: Lesson[Any],
        stream: Stream,
        phantoms: int,
        views: int,
        batch_size: int,
        workers: int,
        generator: torch.Generator,
    ) -> None:
        self.lesson, self.stream = lesson, stream
        self.phantoms, self.views, self.workers = phantoms, views, workers
        self.batch_size, self.generator = batch_size, generator
        self._drawn: Iterator[dict[str, Any]] | None = None

    def __call__(self, epoch: int) -> Iterator[list[Tensor]]:
        if self._drawn is None:  # one loader for all epochs: its workers draw for the next while this one is shown
            first = (epoch - 1) * self.phantoms
            loader = stream_loader(self.stream, batch_size=1, start=first, workers=self.workers, prefetch=self.phantoms)
            self._drawn = iter(loader)
        kept: list[Tensors] = []
        for _ in range(self.phantoms):
            kept.append(self.lesson.tensors({name: value[0] for name, value in next(self._drawn).items()}))
            if len(kept) % self.batch_size == 0 or len(kept) == self.phantoms:
                yield self._batch(kept[(len(kept) - 1) // self.batch_size * self.batch_size :])
        for _ in range(self.views - 1):
            for numbers in torch.randperm(self.phantoms, generator=self.generator).split(self.batch_size):
                yield self._batch([kept[number] for number in numbers.tolist()])

    def _batch(self, some: list[Tensors]) -> list[Tensor]:
        return self.lesson.changed(tuple(torch.stack(parts) for parts in zip(*some, strict=True)), self.generator)
