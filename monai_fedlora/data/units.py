"""Patients and lesions with several photographs (units): each stays in one split and has one label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from monai_fedlora.data.cases import SPLITS, Case
from monai_fedlora.data.records import Record
from monai_fedlora.data.splits import seeded_rank
from monai_fedlora.errors import ConfigError
from monai_fedlora.patient_codes import plain_code


def unit_of(record: Record) -> str:
    """Return the patient or lesion of a record, whose records must stay in one split; else its subject."""
    return record.subject if record.unit is None else record.unit


def unit_numbers(cases: Sequence[Case]) -> list[int]:
    """Return a number for every case, the same for all cases of a unit; units are numbered as they first occur.

    Codes are the same where a ledger of what was told of patients takes them for the same, see
    :func:`monai_fedlora.patient_codes.plain_code`.
    """
    numbers: dict[str, int] = {}
    return [numbers.setdefault(plain_code(case.unit or case.subject), len(numbers)) for case in cases]


def unit_labels(records: Sequence[Record], labels: Mapping[str, int]) -> dict[str, int]:
    """Return the label of every unit: the most frequent one of its records, the lower one of equally frequent ones.

    Args:
        records: the records.
        labels: label of every subject.
    """
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for record in records:
        counts[unit_of(record)][labels[record.subject]] += 1
    return {unit: min(count, key=lambda label: (-count[label], label)) for unit, count in counts.items()}


def keep_published_apart(records: Sequence[Record]) -> list[Record]:
    """Leave out records whose unit has a record in a later published split.

    Where a data set was split by image, a lesion can be in several splits. All published test records stay; validation
    records stay unless their unit is in the test set, training records unless it is in one of the two.
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

    The units of each class are put into a seeded order, which is independent of that of the splits, and are taken from
    its front in turn, so that every class is there as long as the limit allows. A smaller subset is part of a larger
    one, except for units that were too large for what was left.

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
