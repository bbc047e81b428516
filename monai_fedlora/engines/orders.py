"""Cases whose files do not tell how the patient lies: trained in every order of their axes, evaluated in all of them.

A trained epoch shows such a case in one of the 16 orders, the next epoch in the next one, so that 16 epochs show all,
with or without augmentation; which comes first depends on the case. What is kept of frozen blocks therefore takes up to
16 times the room (with fixed augmented views, the least common multiple of both numbers) and is complete after as many
epochs. An evaluation averages the logits over all 16, as an exported model does, and takes 16 times as long; the mean
of logits keeps temperature scaling exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.engines.dataset import FILLED, CaseView
from monai_fedlora.transforms.cine import PLACEHOLDER
from monai_fedlora.transforms.orientation import N_ORDERS, filled_slices, one_order, turned, turned_back

Shown = Tensor | list[CaseView]
"""Images (B, ...), or views of B cases."""


def order_of_epoch(subject: str, epoch: int) -> int:
    """The order, from 0 to 15, in which an epoch shows a case of unknown orientation."""
    first = hashlib.sha256(subject.encode("utf-8", "surrogateescape")).digest()[0]
    return (first + epoch) % N_ORDERS


def in_order_of_epoch(images: Shown, batch: Any, epoch: int) -> Shown:
    """Show the cases of unknown orientation of a batch in the order of an epoch.

    Args:
        images: (B, ...), or views of B cases.
        batch: what they come from; ``placeholder`` (B,), where there is one, says which are of unknown orientation.
        epoch: counted from 1.
    """
    unknown = unknown_orientations(batch)
    if not any(unknown):
        return images
    subjects = batch.get("subject", range(len(images)))
    return _alike(
        [
            in_order(image, order_of_epoch(str(subject), epoch)) if lost else image
            for image, lost, subject in zip(images, unknown, subjects, strict=True)
        ]
    )


def targets_in_order_of_epoch(targets: Tensor, images: Shown, batch: Any, epoch: int) -> Tensor:
    """Turn targets on the image's grid as :func:`in_order_of_epoch` turns their images.

    Args:
        targets: (B, F, X, X, Z).
        images: as they were before that.
        batch, epoch: as there.
    """
    unknown = unknown_orientations(batch)
    if not any(unknown):
        return targets
    subjects = batch.get("subject", range(len(targets)))
    return torch.stack(
        [
            turned(target, order_of_epoch(str(subject), epoch), filled=_filled(images, batch, place))
            if lost
            else target
            for place, (target, lost, subject) in enumerate(zip(targets, unknown, subjects, strict=True))
        ]
    )


def _filled(images: Shown, batch: Any, place: int) -> int:
    """Slices that an image of a batch fills. Beside a view whose mask changes along with it lies how many."""
    if FILLED in batch:
        return int(batch[FILLED][place])
    image = images[place]
    return filled_slices(image if isinstance(image, Tensor) else image.image())


def in_order(image: Tensor | CaseView, number: int) -> Any:
    """An image, or a view of one, in one of the 16 orders."""
    return one_order(image, number) if isinstance(image, Tensor) else replace(image, order=number)


def mean_maps(images: Shown, batch: Any, run: Callable[[Any], Tensor]) -> Tensor:
    """Logits (B, ..., X, X, Z) on the image's grid; of cases of unknown orientation each order's is turned back first.

    Args:
        images: (B, F, X, X, Z), or views of B cases.
        batch: what they come from.
        run: from images to logits.
    """
    unknown = unknown_orientations(batch)
    if not any(unknown):
        return run(images)
    found = []
    for place, (shown, together) in enumerate(runs(images, unknown)):
        logits = run(shown).float()
        if together:
            filled = _filled(images, batch, place)
            logits = torch.stack([turned_back(one, number, filled=filled) for number, one in enumerate(logits)])
            logits = logits.mean(dim=0, keepdim=True)
        found.append(logits[0])
    return torch.stack(found)


def mean_logits(images: Shown, unknown: list[bool], run: Callable[[Any], Tensor]) -> Tensor:
    """Logits (B, C), of cases of unknown orientation the mean over all orders.

    Args:
        images: (B, ...), or views of B cases.
        unknown: which are of unknown orientation; empty for none.
        run: from images to logits.
    """
    if not any(unknown):
        return run(images)
    found = [(run(shown).float(), together) for shown, together in runs(images, unknown)]
    return torch.stack([logits.mean(dim=0) if together else logits[0] for logits, together in found])


def runs(images: Shown, unknown: list[bool]) -> Iterator[tuple[Shown, bool]]:
    """What goes through the network at once: all images, or, where one is of unknown orientation, each by itself.

    Args:
        images: (B, ...), or views of B cases.
        unknown: which are of unknown orientation; empty for none.

    Yields:
        Images, and whether they are all orders of one of unknown orientation.
    """
    if not any(unknown):
        yield images, False
        return
    for index, lost in enumerate(unknown):
        if lost:
            yield _alike([in_order(images[index], number) for number in range(N_ORDERS)]), True
        else:
            yield images[index : index + 1], False


def _alike(shown: list[Any]) -> Shown:
    """Images as a batch, or views as a list."""
    return torch.stack(shown) if isinstance(shown[0], Tensor) else shown


def unknown_orientations(batch: Any) -> list[bool]:
    """Which cases of a batch are of unknown orientation; empty where the batch does not say."""
    found = batch.get(PLACEHOLDER) if isinstance(batch, Mapping) else None
    return [] if found is None else torch.as_tensor(found).flatten().tolist()
