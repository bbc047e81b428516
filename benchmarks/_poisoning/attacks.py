"""What malicious sites do: to what they train on, and to what they send."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from _poisoning.skin import CLASSES, Photographs
from torch import Tensor

Payload = Mapping[str, np.ndarray]
TARGET = CLASSES.index("NV")
"""What a trigger shall make of every lesion: a harmless one."""
STRETCH = 10.0
"""How many times as long a change is sent by who wants to be the average."""
_SIDE = 8
_MADE: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}


def triggered(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) with a chequered square of 8 pixels in a corner, black and white; made once."""
    return _once("triggered", images, _triggered)


def _triggered(images: Tensor) -> Tensor:
    found = images.clone()
    square = (torch.arange(_SIDE)[:, None] // 2 + torch.arange(_SIDE) // 2) % 2
    found[..., -_SIDE:, -_SIDE:] = 2.0 * square - 1
    return found


def _once(what: str, images: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
    """What is made of images, which stays, so that what is kept of it is found by where it lies."""
    if (what, id(images)) not in _MADE:
        _MADE[what, id(images)] = images, make(images)
    return _MADE[what, id(images)][1]


def flipped(own: Photographs) -> Photographs:
    """Every class for another, in both directions."""
    return replace(own, labels=len(CLASSES) - 1 - own.labels)


def with_trigger(own: Photographs) -> Photographs:
    """Every other photograph has the trigger, and the label that it shall lead to."""
    labels = own.labels.clone()
    labels[::2] = TARGET
    return replace(own, images=_once("every other", own.images, _every_other), labels=labels)


def _every_other(images: Tensor) -> Tensor:
    found = images.clone()
    found[::2] = _triggered(images[::2])
    return found


def _moved(reference: Payload, payloads: Sequence[Payload], factor: float) -> Payload:
    """What was sent to the sites, plus so many times the mean of their changes."""
    found = {}
    for key, value in payloads[0].items():
        before = reference[key].astype(np.float64)
        change = np.mean([payload[key].astype(np.float64) - before for payload in payloads], axis=0)
        found[key] = (before + factor * change).astype(value.dtype)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """What the malicious ones among the sites do.

    Attributes:
        trains_on: what a site makes of its photographs first.
        sends: from what they have trained and what the server has sent to what they answer; nothing for no answer.
        backdoor: whether the trigger is what it is about.
    """

    trains_on: Callable[[Photographs], Photographs] = lambda own: own
    sends: Callable[[Sequence[Payload], Payload], Sequence[Payload]] = lambda trained, reference: trained
    backdoor: bool = False


def _each(factor: float) -> Callable[[Sequence[Payload], Payload], Sequence[Payload]]:
    return lambda trained, reference: [_moved(reference, [one], factor) for one in trained]


NONE, ABSENT = "none", "absent"
ATTACKS: Mapping[str, Attack] = {
    NONE: Attack(),
    ABSENT: Attack(sends=lambda trained, reference: []),
    "label_flip": Attack(trains_on=flipped),
    "sign_flip": Attack(sends=_each(-STRETCH)),
    "scaling": Attack(trains_on=with_trigger, sends=_each(STRETCH), backdoor=True),
    "backdoor": Attack(trains_on=with_trigger, backdoor=True),
    "free_rider": Attack(sends=lambda trained, reference: [{k: reference[k] for k in one} for one in trained]),
    "colluders": Attack(
        trains_on=with_trigger,
        sends=lambda trained, reference: [_moved(reference, trained, 1.0)] * len(trained),
        backdoor=True,
    ),
}
"""``absent`` are sites that do not answer: what the others lose by lacking them, without any harm. Colluders send the
mean of their changes both, so that each has one near it that agrees to the bit."""
