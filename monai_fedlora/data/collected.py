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

from monai_fedlora.data.cases import NO_LABEL, SPLITS, Case, Datalist
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
        entries: what else an item of the task holds, such as ``label``, the index of its class.
        subject: the patient; None where the case is the only one of its patient.
    """

    image: Tensor
    entries: Mapping[str, Any]
    subject: str | None = None


@dataclass(frozen=True, kw_only=True)
class TargetKind:
    r"""What a case of a task has beside its image.

    Attributes:
        key: of what a network shall say of it, which is also its word in messages; data sets of pairs give it second.
        read: given the case as it was given, its image (C, \*spatial), and its name for messages, returns the entries
            that an item holds; raises DataError.
        complete: given these entries, the names of the task, and the name of the case, returns them with what only the
            names tell; raises DataError where they do not fit the names.
        has_labels: whether an entry is an index into the names, under ``label``.
    """

    key: str
    read: Callable[[Mapping[str, Any], Tensor, str], dict[str, Any]]
    complete: Callable[[Mapping[str, Any], Sequence[str], str], dict[str, Any]]
    has_labels: bool = False


Parts = Mapping[str, Sequence[Item]]
"""Cases by split, "training", "validation" and "test"."""


def read_part(
    part: Any, *, site: str, split: str, transform: Sequence[Callable] | Callable = (), kind: TargetKind | None = None
) -> list[Item]:
    """Read one split.

    Args:
        part: None for no case; a tuple of images (N, C, \\*spatial), labels (N,) and optionally subjects (N,); or
            anything with a length that holds cases: dictionaries with ``image``, ``label`` and, where known,
            ``subject``, or pairs of an image and a label.
        site, split: names for messages.
        transform: deterministic MONAI dictionary transforms, run once for each case.
        kind: what takes the place of labels in another task than classification.

    Raises:
        DataError: the numbers of images and labels differ, a case lacks an image or label or has one of a wrong type,
            an image is not finite, or a case differs each time it is read; the message names the site and the case.
    """
    if part is None:
        return []
    place = f"{site}: the {split} part"
    kind = kind or LABEL
    try:
        count = len(part[0] if isinstance(part, tuple) else part)
        if not isinstance(part, tuple) and (isinstance(part, Mapping) or not hasattr(part, "__getitem__")):
            raise TypeError
    except TypeError:
        raise DataError(
            f"{place} is a {type(part).__name__}; give images and {several(kind.key)} as a tuple, a list of "
            f"dictionaries with image and {kind.key}, a data set with a length (of a data loader, its dataset), "
            "or a prepared folder"
        ) from None
    reader = _of_arrays(part, place, kind) if isinstance(part, tuple) else _of_items(part, place, kind)
    steps = Compose(list(transform) if isinstance(transform, Sequence) else [transform])
    _check_repeatable(steps, "transform", place)
    found: list[Item] = []
    for number in range(count):
        case = f"{site}: {split} case {number}"
        found.append(_item(_transformed(reader(number), steps, case, kind), case, kind))
    if count and not isinstance(part, (tuple, list)):
        _check_same(part, reader, steps, found[0], place, kind)
    return found


def collect(
    parts: Parts,
    *,
    site: str,
    classes: Sequence[str],
    seed: int = 0,
    images: str = UNKNOWN,
    dataset: str = "memory",
    kind: TargetKind | None = None,
    task: str | None = None,
) -> tuple[Datalist, dict[str, tuple[dict[str, Any], ...]]]:
    """Join a site's cases to a datalist; a warning tells of images that two parts have in common, equal to the bit.

    Args:
        parts: see :data:`Parts`.
        site: its name.
        classes: names in label order.
        seed: seed of the split, which was made elsewhere; it is only recorded.
        images: kind of the images, see :mod:`monai_fedlora.data.origin`.
        dataset: name of the data set.
        kind: as for :func:`read_part`.
        task: that the datalist names; None for classification.

    Returns:
        The cases as a datalist, and by split one MONAI dictionary per case with ``image``, ``subject``, and
        what the task has, such as ``label``.

    Raises:
        DataError: there is no training case, a label is not an index into the classes, images differ in shape, or a
            subject has cases in two splits.
    """
    check_site_name(site)
    if not parts.get("training"):
        raise DataError(f"{site} has no training case; give it some, or leave the site out")
    kind = kind or LABEL
    entries = _check_items(parts, site, classes, kind)
    _tell_about_equal_images(parts, site)
    listed: dict[str, Any] = {}
    items: dict[str, tuple[dict[str, Any], ...]] = {}
    for split in SPLITS:
        found = parts.get(split, ())
        listed[split] = tuple(
            Case(
                subject=f"{split}-{number:05d}",
                label=entries[split][number]["label"] if kind.has_labels else NO_LABEL,
                group=classes[entries[split][number]["label"]] if kind.has_labels else "",
                unit=item.subject,
            )
            for number, item in enumerate(found)
        )
        items[split] = tuple(
            {"image": item.image, **entries[split][number], "subject": case.unit or case.subject}
            for number, (item, case) in enumerate(zip(found, listed[split], strict=True))
        )
    datalist = Datalist(
        site=site,
        dataset=dataset,
        task=task or ("binary" if len(classes) == 2 else "multiclass"),
        classes=tuple(classes),
        image_root=Path(),
        seed=seed,
        **listed,
        origin=Origin(kind=images, name=dataset),
    )
    return datalist, items


def several(word: str) -> str:
    """The plural of a target's key."""
    return word if word.endswith("s") else f"{word}s"


def _of_arrays(part: tuple[Any, ...], place: str, kind: TargetKind) -> Callable[[int], dict[str, Any]]:
    many = several(kind.key)
    if len(part) not in (2, 3):
        raise DataError(f"{place} is a tuple of {len(part)}; give (images, {many}) or (images, {many}, subjects)")
    lengths = [len(column) for column in part]
    if len(set(lengths)) > 1:
        names = ("images", many, "subjects")
        counted = ", ".join(f"{count} {name}" for name, count in zip(names, lengths, strict=False))
        raise DataError(f"{place} has {counted}; give one {kind.key} (and one subject) for each image")
    return lambda number: dict(zip(("image", kind.key, "subject"), (column[number] for column in part), strict=False))


def _of_items(part: Any, place: str, kind: TargetKind) -> Callable[[int], dict[str, Any]]:
    def read(number: int) -> dict[str, Any]:
        item = part[number]
        if isinstance(item, Mapping):
            return dict(item)
        if isinstance(item, (tuple, list)) and len(item) == 2:
            return {"image": item[0], kind.key: item[1]}
        raise DataError(
            f"{place} holds a {type(item).__name__}; its cases must be dictionaries with image and {kind.key}, or pairs"
        )

    return read


def _transformed(case: dict[str, Any], steps: Compose, name: str, kind: TargetKind) -> Mapping[str, Any]:
    if not steps.transforms:
        return case
    try:
        made = steps(copy.deepcopy(case))  # transforms that compute in place must not change the user's data
    except Exception as error:
        tell_out_of_memory(error, f"transforming {name}")
        cause = error.__cause__ or error
        raise DataError(f"{name} cannot be transformed: {type(cause).__name__}: {str(cause)[:300]}") from error
    if not isinstance(made, Mapping):
        raise DataError(f"{name}: transform gives a {type(made).__name__}, not a dictionary with image and {kind.key}")
    return made


def _item(case: Mapping[str, Any], name: str, kind: TargetKind) -> Item:
    if missing := [key for key in ("image", kind.key) if key not in case]:
        raise DataError(f"{name} has no {missing[0]}; its keys are {', '.join(map(str, case))}")
    subject = case.get("subject")
    image = _image(case["image"], name)
    return Item(image=image, entries=kind.read(case, image, name), subject=None if subject is None else str(subject))


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


def _label(case: Mapping[str, Any], image: Tensor, name: str) -> dict[str, Any]:
    value = case["label"]
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.size == 1 and array.dtype.kind in "biuf" and float(array.item()).is_integer():
        return {"label": int(array.item())}
    raise DataError(f"{name} has the label {str(value)[:60]!r}; a label is one whole number, the index of the class")


def _class_of(entries: Mapping[str, Any], classes: Sequence[str], name: str) -> dict[str, Any]:
    if not 0 <= entries["label"] < len(classes):
        raise DataError(
            f"{name} has the label {entries['label']}, and there are {len(classes)} classes, 0 to "
            f"{len(classes) - 1}, as many as the network has outputs; count labels from 0"
        )
    return dict(entries)


LABEL = TargetKind(key="label", read=_label, complete=_class_of, has_labels=True)
"""The index of a class."""


def _check_repeatable(steps: Compose, what: str, place: str) -> None:
    if random := [step for step in steps.flatten().transforms if isinstance(step, Randomizable)]:
        raise DataError(
            f"{place}: {what} has {type(random[0]).__name__}, which is random, and a case is read once; give random "
            "transforms as augmentation="
        )


def _check_same(part: Any, reader: Callable, steps: Compose, first: Item, place: str, kind: TargetKind) -> None:
    """Refuse a data set whose first case differs from one reading to the next."""
    if isinstance(own := getattr(part, "transform", None), Compose):
        _check_repeatable(own, "its transform", place)
    for _ in range(2):
        again = _item(_transformed(reader(0), steps, place, kind), place, kind)
        if again.image.shape != first.image.shape or not torch.equal(again.image, first.image):
            raise DataError(
                f"{place} gives another image each time case 0 is read, and a case is read once; leave its random "
                "transforms out and give them as augmentation="
            )


def _check_items(parts: Parts, site: str, classes: Sequence[str], kind: TargetKind) -> dict[str, list[dict[str, Any]]]:
    """Refuse cases that do not fit each other; returns the entries of their items, by split."""
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    shape = parts["training"][0].image.shape
    where: dict[str, str] = {}
    placed = [(split, *each) for split in SPLITS for each in enumerate(parts.get(split, ()))]
    for split, number, item in placed:
        found[split].append(kind.complete(item.entries, classes, f"{site}: {split} case {number}"))
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
    return found


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
