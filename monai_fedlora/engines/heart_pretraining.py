"""Pre-training a cine backbone and its decoder on labelled phantoms, which are drawn while it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from torch import Tensor

from monai_fedlora import files
from monai_fedlora.data.phantom.heart_truth import TRUTHS
from monai_fedlora.data.phantom.phantom_stream import PhantomStream, stream_loader
from monai_fedlora.data.phantom.vendors import GROUPS
from monai_fedlora.errors import ConfigError
from monai_fedlora.measures.structures import HEART
from monai_fedlora.networks.cinema import SIZES, convunetr, convvit
from monai_fedlora.networks.heart_supervision import WEIGHTS, HeartSupervision
from monai_fedlora.networks.pretraining_epochs import pretraining_epochs
from monai_fedlora.networks.pretraining_state import PretrainingState
from monai_fedlora.networks.standardise import standardise_patches
from monai_fedlora.source_digest import TRAINING, source_digest
from monai_fedlora.transforms.pair_augmentation import augment_pairs

_HELD_OUT = 7_919_000
"""Added to the seed of the stream, for the phantoms on which the result is measured."""

_SKIP_DROP = 0.5
"""How often the decoder gets no skips."""

_STANDARD: Mapping[str, tuple[bool, float, float]] = {
    "lv_ed_ml": (True, 5.0, 0.4),
    "lv_es_ml": (True, 4.3, 0.75),
    "rv_ed_ml": (True, 5.0, 0.3),
    "rv_es_ml": (True, 4.4, 0.5),
    "myo_ed_ml": (True, 4.9, 0.35),
    "lv_ejection_percent": (False, 49.0, 20.0),
    "rv_ejection_percent": (False, 46.0, 12.0),
    "wall_mean_mm": (True, 2.15, 0.3),
    "wall_largest_mm": (True, 2.3, 0.45),
}
"""By truth: whether its logarithm is learned, and about the mean and standard deviation among phantoms (ours)."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How well a network reads phantoms that it has not seen.

    Attributes:
        dice: by structure and frame, such as ``LV ED``, the mean over phantoms.
        correlation: by truth, of what the pooled tokens say with what is true.
        balanced_accuracy: of the class.
    """

    dice: Mapping[str, float]
    correlation: Mapping[str, float]
    balanced_accuracy: float

    def to_json(self) -> dict[str, Any]:
        """Rounded to three digits."""
        rounded: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_float=lambda text: round(float(text), 3))
        return rounded


def pretrain_hearts(
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
    bf16: bool = False,
    workers: int = 0,
    held_out: int = 200,
    provenance: str = "",
    on_resume: Callable[[int], None] = lambda epochs: None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> tuple[tuple[float, ...], Measured]:
    """Train, measure on held-out phantoms, and save encoder and decoder in half precision as safetensors.

    Before that, what a linear head reads of the patch tokens is standardised over ``held_out`` further phantoms, see
    :func:`monai_fedlora.networks.standardise.standardise_patches`; the class token varies enough between hearts.

    AdamW with betas (0.9, 0.98), weight decay 0.05 on matrices and the gradient's norm clipped to 3; the learning rate
    rises linearly over a tenth of the steps and falls by a cosine to zero. What is reached after each epoch is kept in
    ``<output>.state``; a call with the same settings goes on from there, to the bit on a processor.

    Args:
        size: name in :data:`monai_fedlora.networks.cinema.SIZES`.
        epochs: how many, at least 1.
        phantoms: new ones drawn in each epoch.
        views: how often each is shown in its epoch, changed anew each time; drawing costs more than showing.
        batch_size: phantoms in a step.
        lr: the highest learning rate.
        seed: of the weights, the phantoms and what is random about showing them.
        output: the file to write.
        device: where to compute.
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
        WeightsError: the state is damaged.
        OutOfMemory: memory ran out.
    """
    numbers = {"epochs": epochs, "phantoms": phantoms, "views": views, "batch_size": batch_size, "held_out": held_out}
    for name, value in {**numbers, "lr": lr}.items():
        if not value > 0:
            raise ConfigError(f"{name} must be positive, not {value}")
    network = _untrained(size, seed).to(device).train()
    settings = {name: str(value) for name, value in {"size": size, "lr": lr, "seed": seed, **numbers}.items()}
    ground = {"precision": "bf16" if bf16 else "float32", "version of the code": source_digest(TRAINING)}
    state = PretrainingState(path=output.with_name(f"{output.name}.state"), settings={**settings, **ground})
    generator = torch.Generator().manual_seed(seed)
    shown = _Shown(
        stream=_stream(size, seed),
        phantoms=phantoms,
        views=views,
        batch_size=batch_size,
        workers=workers,
        generator=generator,
    )
    heads = tuple(f"classifier.{prefix}" for prefix in network.classifier.head_prefixes)
    losses = pretraining_epochs(
        shown,
        network,
        (p for key, p in network.named_parameters() if not key.startswith(heads)),
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
    measured = measure(network, _stream(size, seed + _HELD_OUT), count=held_out, device=device)
    following = range(epochs * phantoms, epochs * phantoms + held_out)
    stream = _stream(size, seed)
    standardise_patches(network.classifier, (stream[number]["image"][None].to(device) for number in following))
    files.save_tensors(
        output,
        {key: value.half() for key, value in network.backbone_state().items()},
        {
            "architecture": "ConvViT with decoder",
            "size": size,
            "image_size": "x".join(str(n) for n in SIZES[size].image_size),
            "n_frames": "2",
            "structures": ",".join(HEART),
            "objective": "masks, volumes, ejection fractions, wall thickness and class of labelled phantoms",
            "loss_weights": json.dumps(dict(WEIGHTS)),
            **settings,
            "n_images": str(epochs * phantoms),
            "final_loss": f"{losses[-1]:.6f}",
            "held_out": json.dumps(measured.to_json()),
            "provenance": provenance,
            **({"precision": "bf16"} if bf16 else {}),
        },
    )
    state.remove()
    return losses, measured


@torch.no_grad()
def measure(network: HeartSupervision, stream: PhantomStream, *, count: int, device: torch.device) -> Measured:
    """Compare what a network says of the first ``count`` phantoms of a stream with what is true."""
    was = network.training
    network.eval()
    masks, told, true, chosen, label = [], [], [], [], []
    for number in range(count):
        image, shares, truth, group = _tensors(stream[number])
        decoded, _, pooled = network.read(image[None].to(device))
        found = torch.stack([decoded[0].argmax(1) == 1 + number for number in range(len(HEART))], 1).cpu()
        masks.append(compute_dice(found, shares >= 0.5))
        told.append(network.numbers(pooled)[0].cpu())
        true.append(truth)
        chosen.append(int(network.classes(pooled)[0].argmax()))
        label.append(int(group))
    network.train(was)
    dice = torch.stack(masks).nanmean(0)
    pairs = zip(torch.stack(told).T, torch.stack(true).T, strict=True)
    hits = [
        [choice == group for choice, group in zip(chosen, label, strict=True) if group == own]
        for own in {*label} - {-1}
    ]
    return Measured(
        dice={
            f"{name} {frame}": float(dice[f, s]) for f, frame in enumerate(("ED", "ES")) for s, name in enumerate(HEART)
        },
        correlation={
            name: float(torch.corrcoef(torch.stack(pair))[0, 1]) for name, pair in zip(TRUTHS, pairs, strict=True)
        },
        balanced_accuracy=float(np.mean([np.mean(some) for some in hits])) if hits else math.nan,
    )


class _Shown:
    """Batches of an epoch: every new phantom ``views`` times, changed anew each time, in another order in each pass."""

    def __init__(
        self,
        *,
        stream: PhantomStream,
        phantoms: int,
        views: int,
        batch_size: int,
        workers: int,
        generator: torch.Generator,
    ) -> None:
        self.stream, self.phantoms, self.views, self.workers = stream, phantoms, views, workers
        self.batch_size, self.generator = batch_size, generator
        self._drawn: Iterator[dict[str, Any]] | None = None

    def __call__(self, epoch: int) -> Iterator[list[Tensor]]:
        if self._drawn is None:  # one loader for all epochs: its workers draw for the next while this one is shown
            first = (epoch - 1) * self.phantoms
            loader = stream_loader(self.stream, batch_size=1, start=first, workers=self.workers, prefetch=self.phantoms)
            self._drawn = iter(loader)
        kept: list[tuple[Tensor, ...]] = []
        for _ in range(self.phantoms):
            kept.append(_tensors({name: value[0] for name, value in next(self._drawn).items()}))
            if len(kept) % self.batch_size == 0 or len(kept) == self.phantoms:
                yield self._batch(kept[(len(kept) - 1) // self.batch_size * self.batch_size :])
        for _ in range(self.views - 1):
            for numbers in torch.randperm(self.phantoms, generator=self.generator).split(self.batch_size):
                yield self._batch([kept[number] for number in numbers.tolist()])

    def _batch(self, some: list[tuple[Tensor, ...]]) -> list[Tensor]:
        image, shares, truth, label = (torch.stack(parts) for parts in zip(*some, strict=True))
        moved, turned = augment_pairs(image, shares.flatten(1, 2), self.generator)
        return [moved, turned.unflatten(1, shares.shape[1:3]), truth, label]


def _tensors(item: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, shares in [0, 1], standardised truths and label of an item of the stream."""
    truth = [
        ((math.log(value) if logarithm else value) - mean) / deviation
        for value, (logarithm, mean, deviation) in zip(item["targets"].tolist(), _STANDARD.values(), strict=True)
    ]
    return item["image"], item["mask"].float() / 255, torch.tensor(truth), item["label"]


def _stream(size: str, seed: int) -> PhantomStream:
    shape = SIZES[size]
    return PhantomStream(image_size=shape.image_size, spacing=shape.spacing, seed=seed)


def _untrained(size: str, seed: int) -> HeartSupervision:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HeartSupervision(
            convvit(size, out_chans=1),
            convunetr(size, out_chans=1 + len(HEART), skip_drop=_SKIP_DROP),
            numbers=len(TRUTHS),
            classes=len(GROUPS),
        )
