"""What labelled phantoms of hearts teach a cine backbone and its decoder, and how well they have learned it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from torch import Tensor

from monai_fedlora.data.phantom.heart_truth import TRUTHS
from monai_fedlora.data.phantom.phantom_stream import PhantomStream
from monai_fedlora.data.phantom.vendors import GROUPS
from monai_fedlora.engines.supervised_pretraining import Lesson, Measure, Stream, Tensors
from monai_fedlora.measures.structures import HEART
from monai_fedlora.networks.cinema import SIZES, convunetr, convvit
from monai_fedlora.networks.heart_supervision import WEIGHTS, HeartSupervision
from monai_fedlora.networks.standardise import standardise_patches
from monai_fedlora.transforms.pair_augmentation import augment_pairs

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
class Measured(Measure):
    """How well a network reads phantoms that it has not seen.

    Attributes:
        dice: by structure and frame, such as ``LV ED``, the mean over phantoms.
        correlation: by truth, of what the pooled tokens say with what is true.
        balanced_accuracy: of the class.
    """

    dice: Mapping[str, float]
    correlation: Mapping[str, float]
    balanced_accuracy: float


def heart_lesson(size: str, *, seed: int, device: torch.device) -> Lesson[Measured]:
    """What hearts teach a cine backbone and its decoder.

    What a linear head reads of the patch tokens is standardised, see
    :func:`monai_fedlora.networks.standardise.standardise_patches`; the class token varies enough between hearts.

    Args:
        size: name in :data:`monai_fedlora.networks.cinema.SIZES`.
        seed: of the weights.
        device: of the network.
    """
    network = _untrained(size, seed).to(device).train()
    return Lesson(
        network=network,
        backbones=(network.classifier, network.segmenter),
        idle=tuple(f"classifier.{prefix}" for prefix in network.classifier.head_prefixes),
        state=network.backbone_state,
        stream=partial(_stream, size),
        tensors=_tensors,
        changed=_changed,
        measure=lambda stream, count: measure(network, stream, count=count, device=device),
        standardise=partial(standardise_patches, network.classifier),
        metadata={
            "architecture": "ConvViT with decoder",
            "size": size,
            "image_size": "x".join(str(n) for n in SIZES[size].image_size),
            "n_frames": "2",
            "structures": ",".join(HEART),
            "objective": "masks, volumes, ejection fractions, wall thickness and class of labelled phantoms",
            "loss_weights": json.dumps(dict(WEIGHTS)),
        },
    )


@torch.no_grad()
def measure(network: HeartSupervision, stream: Stream, *, count: int, device: torch.device) -> Measured:
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


def _changed(some: Tensors, generator: torch.Generator) -> list[Tensor]:
    image, shares, truth, label = some
    moved, turned = augment_pairs(image, shares.flatten(1, 2), generator)
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
