"""A site's cases with their images in memory, read from arrays, dictionaries or data sets of a Python program."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Randomizable
from torch import Tensor

from monai_fedlora.data.cases import SPLITS, Case, Datalist
from monai_fedlora.data.datalist import check_site_name
from monai_fedlora.data.origin import UNKNOWN, Origin
from monai_fedlora.errors import DataError
from monai_fedlora.out_of_memory import tell_out_of_memory

_log = logging.getLogger(__name__)
TRANSFORM_HINT = (
    "give transform= with MONAI's dictionary transforms, such as "
    "[LoadImaged('image', ensure_channel_first=True), Resized('image', (64, 64))], or prepare a folder"
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One case.

    Attributes:
        image: (C, \\*spatial) float32, finite.
        label: index of its class.
        subject: the patient; None where the case is the only one of its patient.
    """

    image: Tensor
    label: int
    subject: str | None = None


Parts = Mapping[str, Sequence[Item]]
"""Cases by split, "training", "validation" and "test"."""


def read_part(part: Any, *, site: str, split: str, transform: Sequence[Callable] | Callable = ()) -> list[Item]:
    """Read one split.

    Args:
        part: None for no case; a tuple of images (N, C, \\*spatial), labels (N,) and optionally subjects (N,); or
            anything with a length that holds cases: dictionaries with ``image``, ``label`` and, where known,
            ``subject``, or pairs of an image and a label.
        site, split: names for messages.
        transform: deterministic MONAI dictionary transforms, run once for each case.

    Raises:
        DataError: the numbers of images and labels differ, a case lacks an image or label or has one of a wrong type,
            an image is not finite, or a case differs each time it is read; the message names the site and the case.
    """
    if part is None:
        return []
    place = f"{site}: the {split} part"
    try:
        count = len(part[0] if isinstance(part, tuple) else part)
        if not isinstance(part, tuple) and (isinstance(part, Mapping) or not hasattr(part, "__getitem__")):
            raise TypeError
    except TypeError:
        kind = type(part).__name__
        raise DataError(
            f"{place} is a {kind}; give images and labels as a tuple, a list of dictionaries with image and label, a "
            "data set with a length (of a data loader, its dataset), or a prepared folder"
        ) from None
    reader = _of_arrays(part, place) if isinstance(part, tuple) else _of_items(part, place)
    steps = Compose(list(transform) if isinstance(transform, Sequence) else [transform])
    _check_repeatable(steps, "transform", place)
    found: list[Item] = []
    for number in range(count):
        case = f"{site}: {split} case {number}"
        found.append(_item(_transformed(reader(number), steps, case), case))
    if count and not isinstance(part, (tuple, list)):
        _check_same(part, reader, steps, found[0], place)
    return found


def collect(
    parts: Parts, *, site: str, classes: Sequence[str], seed: int = 0, images: str = UNKNOWN, dataset: str = "memory"
) -> tuple[Datalist, dict[str, tuple[dict[str, Any], ...]]]:
    """Join a site's cases to a datalist; a warning tells of images that two parts have in common, equal to the bit.

    Args:
        parts: see :data:`Parts`.
        site: its name.
        classes: names in label order.
        seed: seed of the split, which was made elsewhere; it is only recorded.
        images: kind of the images, see :mod:`monai_fedlora.data.origin`.
        dataset: name of the data set.

    Returns:
        The cases as a datalist, and by split one MONAI dictionary per case with ``image``, ``label`` and ``subject``.

    Raises:
        DataError: there is no training case, a label is not an index into the classes, images differ in shape, or a
            subject has cases in two splits.
    """
    check_site_name(site)
    if not parts.get("training"):
        raise DataError(f"{site} has no training case; give it some, or leave the site out")
    _check_items(parts, site, classes)
    _tell_about_equal_images(parts, site)
    listed: dict[str, tuple[Case, ...]] = {}
    items: dict[str, tuple[dict[str, Any], ...]] = {}
    for split in SPLITS:
        found = parts.get(split, ())
        listed[split] = tuple(
            Case(subject=f"{split}-{number:05d}", label=item.label, group=classes[item.label], unit=item.subject)
            for number, item in enumerate(found)
        )
        items[split] = tuple(
            {"image": item.image, "label": item.label, "subject": case.unit or case.subject}
            for item, case in zip(found, listed[split], strict=True)
        )
    datalist = Datalist(
        site=site,
        dataset=dataset,
        task="binary" if len(classes) == 2 else "multiclass",
        classes=tuple(classes),
        image_root=Path(),
        seed=seed,
        **listed,
        origin=Origin(kind=images, name=dataset),
    )
    return datalist, items


def _of_arrays(part: tuple[Any, ...], place: str) -> Callable[[int], dict[str, Any]]:
    if len(part) not in (2, 3):
        raise DataError(f"{place} is a tuple of {len(part)}; give (images, labels) or (images, labels, subjects)")
    lengths = [len(column) for column in part]
    if len(set(lengths)) > 1:
        names = ("images", "labels", "subjects")
        counted = ", ".join(f"{count} {name}" for name, count in zip(names, lengths, strict=False))
        raise DataError(f"{place} has {counted}; give one label (and one subject) for each image")
    return lambda number: dict(zip(("image", "label", "subject"), (column[number] for column in part), strict=False))


def _of_items(part: Any, place: str) -> Callable[[int], dict[str, Any]]:
    def read(number: int) -> dict[str, Any]:
        item = part[number]
        if isinstance(item, Mapping):
            return dict(item)
        if isinstance(item, (tuple, list)) and len(item) == 2:
            return {"image": item[0], "label": item[1]}
        raise DataError(
            f"{place} holds a {type(item).__name__}; its cases must be dictionaries with image and label, or pairs"
        )

    return read


def _transformed(case: dict[str, Any], steps: Compose, name: str) -> Mapping[str, Any]:
    if not steps.transforms:
        return case
    try:
        made = steps(copy.deepcopy(case))  # transforms that compute in place must not change the user's data
    except Exception as error:
        tell_out_of_memory(error, f"transforming {name}")
        cause = error.__cause__ or error
        raise DataError(f"{name} cannot be transformed: {type(cause).__name__}: {str(cause)[:300]}") from error
    if not isinstance(made, Mapping):
        raise DataError(f"{name}: transform gives a {type(made).__name__}, not a dictionary with image and label")
    return made


def _item(case: Mapping[str, Any], name: str) -> Item:
    if missing := [key for key in ("image", "label") if key not in case]:
        raise DataError(f"{name} has no {missing[0]}; its keys are {', '.join(map(str, case))}")
    subject = case.get("subject")
    return Item(
        image=_image(case["image"], name),
        label=_label(case["label"], name),
        subject=None if subject is None else str(subject),
    )


def _image(value: Any, name: str) -> Tensor:
    if isinstance(value, (str, os.PathLike)):
        raise DataError(f"{name} is the file {value}, which nothing reads; {TRANSFORM_HINT}")
    try:
        tensor = value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        try:
            tensor = torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError, RuntimeError) as error:
            tell_out_of_memory(error, f"copying {name}")
            raise DataError(f"{name} is a {type(value).__name__}, which is no image: {error}") from error
    if tensor.is_complex() or tensor.ndim < 2:
        raise DataError(
            f"{name} has the type {tensor.dtype} and the shape {tuple(tensor.shape)}; an image is real numbers "
            "with the channels first, such as (3, 64, 64)"
        )
    image = tensor.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()
    if not bool(torch.isfinite(image).all()):
        raise DataError(f"{name} holds NaN or infinite values; repair or leave out this image")
    return image


def _label(value: Any, name: str) -> int:
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.size == 1 and array.dtype.kind in "biuf" and float(array.item()).is_integer():
        return int(array.item())
    raise DataError(f"{name} has the label {str(value)[:60]!r}; a label is one whole number, the index of the class")


def _check_repeatable(steps: Compose, what: str, place: str) -> None:
    if random := [step for step in steps.flatten().transforms if isinstance(step, Randomizable)]:
        raise DataError(
            f"{place}: {what} has {type(random[0]).__name__}, which is random, and a case is read once; give random "
            "transforms as augmentation="
        )


def _check_same(part: Any, reader: Callable, steps: Compose, first: Item, place: str) -> None:
    """Refuse a data set whose first case differs from one reading to the next."""
    if isinstance(own := getattr(part, "transform", None), Compose):
        _check_repeatable(own, "its transform", place)
    for _ in range(2):
        again = _item(_transformed(reader(0), steps, place), place)
        if again.image.shape != first.image.shape or not torch.equal(again.image, first.image):
            raise DataError(
                f"{place} gives another image each time case 0 is read, and a case is read once; leave its random "
                "transforms out and give them as augmentation="
            )


def _check_items(parts: Parts, site: str, classes: Sequence[str]) -> None:
    shape = parts["training"][0].image.shape
    where: dict[str, str] = {}
    placed = [(split, *each) for split in SPLITS for each in enumerate(parts.get(split, ()))]
    for split, number, item in placed:
        if not 0 <= item.label < len(classes):
            raise DataError(
                f"{site}: {split} case {number} has the label {item.label}, and there are {len(classes)} classes, 0 to "
                f"{len(classes) - 1}, as many as the network has outputs; count labels from 0"
            )
        if item.image.shape != shape:
            raise DataError(
                f"{site}: {split} case {number} is an image of shape {tuple(item.image.shape)}, and the first training "
                f"case {tuple(shape)}; bring all to one, for example with transform="
            )
        if item.subject is not None and where.setdefault(item.subject, split) != split:
            raise DataError(
                f"{site}: subject {item.subject!r} has cases in {where[item.subject]} and in {split}, so that the "
                "model would be measured on somebody it has seen; keep all cases of a subject in one part"
            )


def _tell_about_equal_images(parts: Parts, site: str) -> None:
    """Warn of images in two parts; they are compared by a few of their values, and whole where these agree."""
    alike: dict[bytes, list[tuple[str, int, Tensor]]] = defaultdict(list)
    for split in SPLITS:
        for number, item in enumerate(parts.get(split, ())):
            values = item.image.flatten()
            alike[values[:: 1 + len(values) // 64].numpy().tobytes()].append((split, number, item.image))
    pairs: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for group in alike.values():
        first: dict[bytes, tuple[str, int]] = {}
        for split, number, image in group if len(group) > 1 else ():
            seen, other = first.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), (split, number))
            if seen != split:
                pairs[split, seen].append((number, other))
    for (split, seen), found in pairs.items():
        _log.warning(
            "%s: %d of %d %s images are %s images too, equal to the bit (case %d is case %d there), so that the model "
            "is measured on what it has seen; leave them out of one part",
            site,
            len(found),
            len(parts[split]),
            split,
            seen,
            *min(found),
        )
