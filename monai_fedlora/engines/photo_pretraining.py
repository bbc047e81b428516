"""What labelled pictures of lesions and retinas teach a backbone for photographs, and how well it has learned it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.data.photo_phantom.captions import SIGNS
from monai_fedlora.data.photo_phantom.lesions import CLASSES
from monai_fedlora.data.photo_phantom.photo_stream import LABELS, MAPS, NUMBERS, PhotoStream
from monai_fedlora.engines.supervised_pretraining import Lesson, Measure, Stream, Tensors
from monai_fedlora.networks.catalogue import Architecture
from monai_fedlora.networks.photo_supervision import WEIGHTS, PhotoSupervision
from monai_fedlora.networks.standardise import standardise_readout
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.transforms.picture_changes import change_pictures

_STANDARD: Mapping[str, tuple[bool, float, float]] = {
    "area": (True, -1.9, 0.85),
    "asymmetry": (False, 0.037, 0.022),
    "irregularity": (False, 1.14, 0.1),
    "pigment": (False, 0.63, 0.42),
    "variegation": (False, 0.2, 0.14),
    "blood": (False, 0.37, 0.25),
}
"""By number, whether its logarithm is learned, and about the mean and standard deviation among phantoms (ours)."""

_LEAST_AREA = 0.002  # share of the picture, of which the logarithm is learned where the lesion lies outside


@dataclass(frozen=True, kw_only=True)
class MeasuredPictures(Measure):
    """How well a network reads pictures that it has not seen.

    Attributes:
        dice: of the lesions' masks, the mean over pictures.
        correlation: by number, of what the network says with what is true.
        balanced_accuracy: of the class, over lesions and over retinas apart.
        signs: mean over signs of the mean of sensitivity and specificity, each with the threshold 0.5.
    """

    dice: float
    correlation: Mapping[str, float]
    balanced_accuracy: Mapping[str, float]
    signs: float


def photo_lesson(chosen: Architecture, *, seed: int, device: torch.device) -> Lesson[MeasuredPictures]:
    """What pictures teach a vision transformer; what its head reads is standardised.

    Args:
        chosen: the architecture, whose shape is that of a vision transformer.
        seed: of the weights.
        device: of the network.
    """
    assert isinstance(chosen.shape, ViTSettings) and chosen.mean is not None and chosen.std is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = VisionTransformer(chosen.shape, out_chans=1)
        network = PhotoSupervision(
            backbone,
            mean=chosen.mean,
            std=chosen.std,
            amounts=len(MAPS) - 1,
            numbers=len(NUMBERS),
            signs=len(SIGNS),
            classes=len(LABELS),
            lesions=len(CLASSES),
        )
    network.to(device).train()
    size = chosen.shape.image_size

    def standardise(images: Iterable[Tensor]) -> None:
        standardise_readout(backbone, (network.normalised(image) for image in images))

    return Lesson(
        network=network,
        backbones=(backbone,),
        idle=tuple(f"backbone.{prefix}" for prefix in backbone.head_prefixes),
        state=network.backbone_state,
        stream=lambda number: PhotoStream(image_size=size, seed=number),
        tensors=_tensors,
        changed=_changed,
        measure=partial(_measure, network, device),
        standardise=standardise,
        metadata={
            "architecture": type(backbone).__name__,
            "size": chosen.name,
            "image_size": "x".join(str(n) for n in size),
            "n_channels": "3",
            "objective": "mask, pigments, numbers, signs and class of labelled pictures of lesions and retinas",
            "loss_weights": json.dumps(dict(WEIGHTS)),
            "readout": "standardised",
        },
    )


@torch.no_grad()
def _measure(network: PhotoSupervision, device: torch.device, stream: Stream, count: int) -> MeasuredPictures:
    """Compare what a network says of the first ``count`` pictures of a stream with what is true."""
    was = network.training
    network.eval()
    dice, told, true, said, drawn, chosen, label = [], [], [], [], [], [], []
    for number in range(count):
        image, maps, numbers, signs, group = _tensors(stream[number])
        tokens, pooled = network.read(image[None].to(device))
        chosen.append(int(network.classes(pooled)[0].argmax()))
        label.append(int(group))
        if int(group) >= len(CLASSES):
            continue
        outlined, shown = network.mask(tokens, image.shape[1:])[0, 0].cpu() > 0, maps[0] >= 0.5
        dice.append(float(2 * (outlined & shown).sum() / (outlined.sum() + shown.sum()).clamp(min=1)))
        told.append(network.numbers(pooled)[0].cpu())
        true.append(numbers)
        said.append(network.signs(pooled)[0].cpu() > 0)
        drawn.append(signs > 0)
    network.train(was)
    pairs = zip(torch.stack(told).T, torch.stack(true).T, strict=True) if told else iter(())
    present, claimed = (torch.stack(some).T if some else torch.zeros(0, 0) for some in (drawn, said))
    return MeasuredPictures(
        dice=float(np.mean(dice)) if dice else math.nan,
        correlation={
            name: float(torch.corrcoef(torch.stack(pair))[0, 1]) for name, pair in zip(NUMBERS, pairs, strict=False)
        },
        balanced_accuracy={
            "lesions": _balanced(chosen, label, range(len(CLASSES))),
            "retinas": _balanced(chosen, label, range(len(CLASSES), len(LABELS))),
        },
        signs=_mean(
            _balanced(ours.tolist(), theirs.tolist(), (0, 1)) for ours, theirs in zip(claimed, present, strict=True)
        ),
    )


def _balanced(chosen: list[int], label: list[int], classes: Iterable[int]) -> float:
    """The mean over those classes that occur of the share that was told right."""
    pairs = list(zip(chosen, label, strict=True))
    return _mean(_mean(choice == own for choice, group in pairs if group == own) for own in classes if own in label)


def _mean(values: Iterable[float]) -> float:
    some = list(values)
    return float(np.mean(some)) if some else math.nan


def _changed(some: Tensors, generator: torch.Generator) -> list[Tensor]:
    """A batch with other images, whose areas are those of the masks that are left in the pictures."""
    image, maps, numbers, *rest = some
    shown, moved = change_pictures(image, maps, generator)
    areas = _standardised("area", moved[:, 0].mean(dim=(1, 2)))
    return [shown, moved, torch.cat([areas[:, None], numbers[:, 1:]], dim=1), *rest]


def _tensors(item: dict[str, Any]) -> Tensors:
    """Image, maps, standardised numbers, signs and label of an item of the stream."""
    numbers = torch.stack([_standardised(name, value) for name, value in zip(NUMBERS, item["numbers"], strict=True)])
    return item["image"], item["maps"], numbers, item["signs"], item["label"]


def _standardised(name: str, value: Tensor) -> Tensor:
    """A number, or one for each picture, as it is learned."""
    logarithm, mean, deviation = _STANDARD[name]
    return ((value.clamp(min=_LEAST_AREA).log() if logarithm else value) - mean) / deviation
