"""Assign patients to sites and to splits; neither depends on the order of the input."""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, pairwise

from monai_fedlora.data.cases import SPLITS
from monai_fedlora.data.datalist import check_site_name
from monai_fedlora.data.records import Record
from monai_fedlora.errors import ConfigError, DataError

FRACTIONS = (0.6, 0.15, 0.25)
"""Training, validation and test share of a site's patients (ours)."""

_NEEDY_FIRST = ("training", "test", "validation")


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse fractions that are not those of a split.

    Raises:
        ConfigError: there are not three, one is negative, that of training is 0, or the sum is not 1.
    """
    wrong = len(fractions) != 3 or not all(0 <= share <= 1 for share in fractions)
    if wrong or fractions[0] <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ConfigError(
            f"the fractions {', '.join(map(str, fractions))} must be three shares for training, validation and "
            "test that add up to 1, such as 0.6,0.15,0.25"
        )


def split_counts(n: int, fractions: Sequence[float]) -> tuple[int, int, int]:
    """Return how many of ``n`` patients go to training, validation and test.

    Numbers are rounded by largest remainders. Then every split with a fraction above 0 gets at least one patient, as
    long
    as there are enough: training first, then test, then validation. A number differs from ``n`` times its fraction by
    less than 3.
    """
    quotas = dict(zip(SPLITS, (n * share for share in fractions), strict=True))
    counts = {split: math.floor(quota + 1e-9) for split, quota in quotas.items()}
    by_remainder = sorted(_NEEDY_FIRST, key=lambda split: counts[split] - quotas[split])
    for split in by_remainder[: n - sum(counts.values())]:
        counts[split] += 1
    for rank, split in enumerate(_NEEDY_FIRST):
        if counts[split] == 0 and quotas[split] > 0:
            later = _NEEDY_FIRST[rank + 1 :]
            donors = [other for other in SPLITS if counts[other] > (0 if other in later else 1)]
            if donors:
                counts[max(donors, key=lambda other: counts[other])] -= 1
                counts[split] += 1
    return counts["training"], counts["validation"], counts["test"]


def assign_splits(
    classes: dict[str, str],
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
    fixed: dict[str, str] | None = None,
    draw: Sequence[str] = ("validation",),
) -> dict[str, str]:
    """Return the split of every patient, stratified by class.

    Patients of a class are ordered by a hash of seed and subject, so that a patient's split depends neither on the
    order of the input nor on other classes. A subject may stand for a lesion or patient with several photographs.

    Args:
        classes: class of every subject.
        seed: seed of the split.
        fractions: shares of training, validation and test.
        fixed: published split of some subjects. Published test and validation patients stay in their split. The
            others are divided between training and those splits of ``draw`` that have no published patient.
        draw: splits to draw if the published split lacks them.

    Raises:
        ConfigError: the fractions are not a split.
    """
    check_fractions(fractions)
    fixed = {subject: split for subject, split in (fixed or {}).items() if split != "training" and subject in classes}
    if fixed:
        kept = [
            share if split in draw and split not in fixed.values() else 0.0
            for split, share in zip(SPLITS[1:], fractions[1:], strict=True)
        ]
        validation, test = (share / (fractions[0] + sum(kept)) for share in kept)
        fractions = (1 - validation - test, validation, test)
    members: dict[str, list[str]] = defaultdict(list)
    for subject, name in classes.items():
        if subject not in fixed:
            members[name].append(subject)
    result = dict(fixed)
    for subjects in members.values():
        subjects.sort(key=lambda subject: seeded_rank(subject, seed))
        bounds = list(accumulate(split_counts(len(subjects), fractions)))
        result |= {subject: SPLITS[bisect_right(bounds, place)] for place, subject in enumerate(subjects)}
    return result


def seeded_rank(subject: str, seed: int | str) -> tuple[str, str]:
    """Return a sort key that orders subjects by a hash of seed and subject, independently of other subjects."""
    return hashlib.sha256(f"{seed}/{subject}".encode()).hexdigest(), subject


def group_by_name(records: Sequence[Record], by: str) -> dict[str, list[Record]]:
    """Return the records of every site, where each vendor or centre is a site.

    Args:
        records: the patients.
        by: ``vendor`` or ``centre`` (for a table, its site column).

    Raises:
        DataError: a patient has no vendor or centre, or two of them give the same site name.
    """
    sites: dict[str, list[Record]] = defaultdict(list)
    spelling: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.subject):
        value = record.vendor if by == "vendor" else record.centre
        if value is None:
            raise DataError(f"{record.origin}: the {by} of subject {record.subject} is unknown; group sites otherwise")
        name = site_name(f"centre-{value}" if by == "centre" and value.isdigit() else value)
        known = spelling.setdefault(name, value)
        if known.casefold() != value.casefold():
            raise DataError(f"{record.origin}: {known!r} and {value!r} would both be site {name}; rename one of them")
        sites[name].append(record)
    return dict(sorted(sites.items()))


def group_by_spacing(records: Sequence[Record], n_sites: int) -> dict[str, list[Record]]:
    """Return ``n_sites`` sites with about the same number of patients, by in-plane spacing.

    Patients with the same spacing (to 0.0001 mm) stay together, so that sites differ in size; ``protocol-1`` has the
    finest one. These sites stand for imaging protocols of one data set, not for vendors.

    Raises:
        ConfigError: fewer than two sites are asked for.
        DataError: a record has no spacing, or there are fewer spacings than sites.
    """
    if n_sites < 2:
        raise ConfigError(f"{n_sites} protocol sites are too few; give --sites 2 or more")
    by_spacing: dict[float, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.subject):
        if record.spacing is None:
            raise DataError(f"{record.origin}: a photograph has no spacing in mm; group sites otherwise")
        by_spacing[round(record.spacing, 4)].append(record)
    values = sorted(by_spacing)
    if len(values) < n_sites:
        raise DataError(f"{n_sites} protocol sites need as many in-plane spacings, and there are {len(values)}")
    below = [0, *accumulate(len(by_spacing[value]) for value in values)]
    cuts = [0]
    for number in range(1, n_sites):
        target = len(records) * number / n_sites
        possible = range(cuts[-1] + 1, len(values) - (n_sites - number) + 1)
        cuts.append(min(possible, key=lambda cut: abs(below[cut] - target)))
    cuts.append(len(values))
    return {
        f"protocol-{number}": [record for value in values[start:end] for record in by_spacing[value]]
        for number, (start, end) in enumerate(pairwise(cuts), 1)
    }


def site_name(text: str) -> str:
    """Return ``text`` as a site name: in lower case, with a dash for all but letters, digits and ``_``.

    Raises:
        DataError: nothing usable remains.
    """
    name = re.sub(r"[^a-z0-9_]+", "-", text.casefold()).strip("-_")
    check_site_name(name)
    return name
