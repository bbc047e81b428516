"""Splits of cross-validation: repeated, stratified by class, with all cases of a patient in one part."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict

from monai_fedlora.data.cases import NO_LABEL, SPLITS, Case, Datalist
from monai_fedlora.data.splits import seeded_rank, split_counts
from monai_fedlora.errors import ConfigError, DataError


def check_folds(datalist: Datalist, folds: int) -> None:
    """Refuse a site that cannot be divided into so many parts.

    Raises:
        ConfigError: a class has fewer patients than there are folds; or, in a task without classes, the site has.
        DataError: the cases of a patient are of two classes.
    """
    names = datalist.classes if datalist.training[0].label != NO_LABEL else ()
    counts = Counter(_labels(datalist).values())
    for label, count in sorted(counts.items()):
        if count < folds:
            what = f"patients of {names[label]}" if names else "patients"
            raise ConfigError(
                f"{datalist.site} has {count} {what}, and every one of the {folds} parts needs one; "
                + (f"give --splits {count} or fewer, or " if count > 1 else "")
                + "join sites or classes"
            )


def fold_of(datalist: Datalist, *, folds: int, repeat: int, fold: int) -> Datalist:
    """Divide the cases of a site anew into training, validation and test.

    All cases of the datalist are divided, whatever their own split is. In each repeat every patient is in the test
    split of one fold. The patients of a class are put into an order by a hash of repeat and patient, and are dealt to
    the folds in turn, so that each has the same number of them, give or take one. Of the others, each class gives the
    validation split the share that it has in the datalist (of training and validation together), so that without
    validation cases there are none here.

    Patients are the datalist's units, see :class:`monai_fedlora.data.cases.Case`. In a task without classes the groups
    of the source take the classes' place.

    Args:
        datalist: of a site that :func:`check_folds` accepts.
        folds: number of parts, at least 2.
        repeat: number of the repeat, from 0; each has other parts.
        fold: number of the part that is tested, from 0.
    """
    strata: dict[str, list[str]] = defaultdict(list)
    for patient, stratum in _strata(datalist).items():
        strata[stratum].append(patient)
    held, known = len(datalist.validation), len(datalist.training) + len(datalist.validation)
    share = held / known
    place: dict[str, str] = {}
    dealt = 0
    for _, patients in sorted(strata.items()):
        order = sorted(patients, key=lambda patient: seeded_rank(patient, f"folds/{repeat}"))
        tested = {patient for number, patient in enumerate(order, dealt) if number % folds == fold}
        dealt += len(order)
        rest = sorted(set(order) - tested, key=lambda patient: seeded_rank(patient, f"validation/{repeat}/{fold}"))
        trained = split_counts(len(rest), (1 - share, share, 0.0))[0] if rest else 0
        place |= dict.fromkeys(tested, "test")
        place |= {patient: "training" if n < trained else "validation" for n, patient in enumerate(rest)}
    cases = [case for _, case in datalist.all_cases()]
    training, validation, test = (tuple(c for c in cases if place[_patient(c)] == split) for split in SPLITS)
    return dataclasses.replace(datalist, training=training, validation=validation, test=test)


def _patient(case: Case) -> str:
    return case.unit or case.subject


def _labels(datalist: Datalist) -> dict[str, int]:
    """The label of every patient."""
    labels: dict[str, int] = {}
    for _, case in datalist.all_cases():
        first = labels.setdefault(_patient(case), case.label)
        if first != case.label:
            one, other = datalist.classes[first], datalist.classes[case.label]
            raise DataError(
                f"{datalist.site}: the cases of {_patient(case)} are of two classes, {one} and {other}, so that no "
                "split by class can keep them together; correct their labels, or leave them out"
            )
    return labels


def _strata(datalist: Datalist) -> dict[str, str]:
    """By patient what is dealt evenly: the class, or the source's group."""
    return {
        _patient(case): case.group if case.label == NO_LABEL else f"{case.label:03d}"
        for _, case in datalist.all_cases()
    }
