"""Cases whose files do not tell how the patient lies: trained in every order of their axes, evaluated in all of them.

A trained epoch shows such a case in one of the 16 orders, the next epoch in the next one, so that 16 epochs show all,
with or without augmentation; which comes first depends on the case. What is kept of frozen blocks therefore takes up to
16 times the room (with fixed augmented views, the least common multiple of both numbers) and is complete after as many
epochs. An evaluation averages the logits over all 16, as an exported model does, and takes 16 times as long; the mean
of logits keeps temperature scaling exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.transforms.cine import PLACEHOLDER
from monai_fedlora.transforms.orientation import N_ORDERS, all_orders, one_order


def order_of_epoch(subject: str, epoch: int) -> int:
    """The order, from 0 to 15, in which an epoch shows a case of unknown orientation."""
    first = hashlib.sha256(subject.encode("utf-8", "surrogateescape")).digest()[0]
    return (first + epoch) % N_ORDERS


def in_order_of_epoch(images: Tensor, batch: Any, epoch: int) -> Tensor:
    """Show the cases of unknown orientation of a batch in the order of an epoch.

    Args:
        images: (B, ...).
        batch: what they come from; ``placeholder`` (B,), where there is one, says which are of unknown orientation.
        epoch: counted from 1.
    """
    unknown = unknown_orientations(batch)
    if not any(unknown):
        return images
    subjects = batch.get("subject", range(len(images)))
    return torch.stack(
        [
            one_order(image, order_of_epoch(str(subject), epoch)) if lost else image
            for image, lost, subject in zip(images, unknown, subjects, strict=True)
        ]
    )


def mean_logits(images: Tensor, unknown: list[bool], run: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits (B, C), of cases of unknown orientation the mean over all orders.

    Args:
        images: (B, ...).
        unknown: which are of unknown orientation; empty for none.
        run: from images to logits.
    """
    if not any(unknown):
        return run(images)
    return torch.stack(
        [
            run(all_orders(image)).float().mean(dim=0) if lost else run(image[None])[0].float()
            for image, lost in zip(images, unknown, strict=True)
        ]
    )


def unknown_orientations(batch: Any) -> list[bool]:
    """Which cases of a batch are of unknown orientation; empty where the batch does not say."""
    found = batch.get(PLACEHOLDER) if isinstance(batch, Mapping) else None
    return [] if found is None else torch.as_tensor(found).flatten().tolist()
