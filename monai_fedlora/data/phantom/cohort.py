"""The patients of a phantom: how many of each group, from which scanner or camera, in which order and split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TypeVar

import numpy as np

from monai_fedlora.data.cases import SPLITS, Case, Datalist
from monai_fedlora.data.datalist import FILE_NAME
from monai_fedlora.data.origin import recognised
from monai_fedlora.data.phantom.vendors import GROUPS
from monai_fedlora.data.splits import assign_splits
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import write_json

IMAGES = "images"
"""Folder of a phantom's images, beside its datalist."""

Machine = TypeVar("Machine")


def share_out(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers that add up to ``total``, in proportion to ``shares`` (largest remainders)."""
    whole = sum(shares.values())
    quotas = {name: total * share / whole for name, share in shares.items()}
    counts = {name: int(quota + 1e-9) for name, quota in quotas.items()}
    for name in sorted(shares, key=lambda name: counts[name] - quotas[name])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def draw_groups(total: int, shares: Mapping[str, float], seed: Sequence[int]) -> list[str]:
    """Return the groups of ``total`` patients, in proportion to ``shares`` and in random order."""
    counts = share_out(total, shares)
    groups = [name for name in GROUPS for _ in range(counts.get(name, 0))]
    order = np.random.default_rng(np.random.SeedSequence([*seed])).permutation(total)
    return [groups[place] for place in order]


def machines_named(machines: Mapping[str, Machine], codes: Sequence[str], *, word: str) -> list[Machine]:
    """Return the scanners or cameras of these letters.

    Args:
        machines: scanners or cameras by letter.
        codes: the letters.
        word: "vendor" or "camera", for messages.

    Raises:
        ConfigError: no letter is given, one is unknown or one occurs twice.
    """
    if unknown := [code for code in codes if code not in machines]:
        raise ConfigError(f"unknown {word} {unknown[0]!r}; choose from {', '.join(machines)}")
    if not codes or len(set(codes)) < len(codes):
        raise ConfigError(f"name each {word} once, such as {','.join(machines)}")
    return [machines[code] for code in codes]


def machine_of(site: str, machines: Mapping[str, Machine]) -> Machine:
    """Return the scanner or camera of a site.

    ``site-1`` has the first one, ``site-2`` the second and so on; that of any other site follows from a hash of its
    name.
    """
    known = dict(zip(numbered_sites(machines), machines.values(), strict=True))
    return known.get(site) or tuple(machines.values())[name_seed(site) % len(machines)]


def numbered_sites(machines: Sized) -> list[str]:
    """Return ``site-1`` and so on, one name for each scanner or camera."""
    return [f"site-{number}" for number in range(1, len(machines) + 1)]


def write_site(
    folder: Path,
    *,
    site: str,
    dataset: str,
    task: str,
    classes: tuple[str, ...],
    sizes: tuple[int, int, int],
    seed: int,
    groups: dict[str, str],
    draw: Callable[[int, str], Iterable[Case]],
    scale: tuple[tuple[float, float], ...] = (),
) -> None:
    """Write the datalist of a site's phantom, and its images by calling ``draw``.

    Args:
        folder: an empty folder.
        site, dataset, task, classes, seed, scale: as in :class:`~monai_fedlora.data.cases.Datalist`.
        sizes: about how many cases training, validation and test get.
        groups: the group of each patient or lesion, by name.
        draw: given the number and the name of a patient or lesion, writes its images below ``folder / IMAGES`` and
            returns its cases.
    """
    splits = assign_splits(groups, seed=seed, fractions=[size / sum(sizes) for size in sizes])
    cases: dict[str, list[Case]] = {split: [] for split in SPLITS}
    for number, name in enumerate(groups):
        cases[splits[name]] += draw(number, name)
    datalist = Datalist(
        site=site,
        dataset=dataset,
        task=task,
        classes=classes,
        image_root=folder / IMAGES,
        seed=seed,
        **{split: tuple(members) for split, members in cases.items()},
        origin=recognised(dataset),
        scale=scale,
    )
    write_json(folder / FILE_NAME, datalist.to_json(image_root=IMAGES))


def name_seed(text: str) -> int:
    """Return a number that follows from a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def mnms_code(number: int, seed: int) -> str:
    """Return the code of patient ``number``: letter, digit, three times; different for different numbers."""
    place = (number * 7_654_321 + name_seed(str(seed))) % 260**3  # 7 654 321 shares no divisor with 260
    code = ""
    for _ in range(3):
        place, digit = divmod(place, 260)
        code += f"{chr(ord('A') + digit // 10)}{digit % 10}"
    return code
