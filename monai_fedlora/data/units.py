"""Patients and lesions with several photographs: kept whole, in one split, and counted once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from monai_fedlora.data.cases import SPLITS, Case
from monai_fedlora.data.records import Record
from monai_fedlora.data.splits import seeded_rank
from monai_fedlora.errors import ConfigError


def unit_of(record: Record) -> str:
    """Return what must stay together: the record's patient or lesion, else the record alone."""
    return record.subject if record.unit is None else record.unit


def unit_numbers(cases: Sequence[Case]) -> list[int]:
    """A number for every case, the same for the photographs of one patient or lesion, in the order of their first."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(case.unit or case.subject, len(numbers)) for case in cases]


def unit_labels(records: Sequence[Record], labels: Mapping[str, int]) -> dict[str, int]:
    """Return the label of every unit: the most frequent one of its records, the first class of equals.

    Args:
        records: the records.
        labels: label of every subject.
    """
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for record in records:
        counts[unit_of(record)][labels[record.subject]] += 1
    return {unit: min(count, key=lambda label: (-count[label], label)) for unit, count in counts.items()}


def keep_published_apart(records: Sequence[Record]) -> list[Record]:
    """Leave out what shares its unit with a published test record, or with a published validation record.

    A split published by image can have a lesion on both sides. The published test set stays whole; then the
    published validation set, but for units of the test set.
    """
    place = {split: number for number, split in enumerate(SPLITS)}
    last: dict[str, int] = defaultdict(int)
    for record in records:
        last[unit_of(record)] = max(last[unit_of(record)], place[record.split or "training"])
    return [record for record in records if place[record.split or "training"] == last[unit_of(record)]]


def take_subset(
    records: Sequence[Record], labels: Mapping[str, int], *, limit: int, seed: int, by_split: bool = False
) -> list[Record]:
    """Return at most ``limit`` records in whole units, with the classes in their proportions.

    The units of a class stand in a seeded order, independent of that of the splits, and those go in first that
    are foremost in their class, so that every class is there while the limit allows, and a smaller subset is,
    but for units too large for the rest, part of a larger one.

    Args:
        records: the records of one site.
        labels: label of every subject.
        limit: largest number of records.
        seed: seed of the subset.
        by_split: keep the proportions of the published splits as well.

    Raises:
        ConfigError: the limit is less than 1.
    """
    if limit < 1:
        raise ConfigError(f"--limit {limit} leaves nothing; give the number of images or patients of a site, 1 or more")
    members: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        members[unit_of(record)].append(record)
    strata: dict[tuple[int, str], list[str]] = defaultdict(list)
    for unit, label in unit_labels(records, labels).items():
        split = min(record.split or "" for record in members[unit]) if by_split else ""
        strata[label, split].append(unit)
    places: dict[str, tuple[float, tuple[str, str]]] = {}
    for units in strata.values():
        size = sum(len(members[unit]) for unit in units)
        before = 0
        for rank, unit in sorted((seeded_rank(unit, f"subset/{seed}"), unit) for unit in units):
            places[unit] = (before / size, rank)
            before += len(members[unit])
    taken: list[Record] = []
    for unit in sorted(places, key=lambda unit: places[unit]):
        if len(taken) + len(members[unit]) <= limit:
            taken += members[unit]
    return taken
