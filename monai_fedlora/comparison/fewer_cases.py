"""A part of a site's training cases, for curves over their number."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.splits import seeded_rank
from monai_fedlora.errors import ConfigError


def fewer_cases(datalist: Datalist, n: int, *, seed: int) -> Datalist:
    """A datalist with ``n`` of its training patients; validation and test stay.

    A patient, or lesion, brings all its cases. One of every class comes first, so that no class is missing where ``n``
    allows it, and then the proportions of the classes are kept as far as whole patients allow; a patient with cases of
    several classes counts as of the first. With the same seed, the patients for a smaller ``n`` are among those for a
    larger one.
    """
    labels: dict[str, int] = {}
    for case in datalist.training:
        labels.setdefault(patient_of(case), case.label)
    members: dict[int, list[str]] = defaultdict(list)
    for patient in sorted(labels, key=lambda patient: seeded_rank(patient, seed)):
        members[labels[patient]].append(patient)
    place = {
        patient: (position > 0, (position + 0.5) / len(patients), seeded_rank(patient, seed))
        for patients in members.values()
        for position, patient in enumerate(patients)
    }
    chosen = sorted(labels, key=lambda patient: place[patient])[:n]
    order = {patient: number for number, patient in enumerate(chosen)}
    kept = [case for case in datalist.training if patient_of(case) in order]
    return dataclasses.replace(datalist, training=tuple(sorted(kept, key=lambda case: order[patient_of(case)])))


def patient_of(case: Case) -> str:
    """The patient or lesion of a case."""
    return case.unit or case.subject


def check_curve(
    cases: tuple[int, ...],
    datalists: Mapping[str, Datalist],
    *,
    methods: tuple[str, ...],
    alone: str,
    measures: Measures,
) -> None:
    """Refuse learning curves that compare nothing.

    Args:
        cases: numbers of training patients, increasing.
        datalists: of the sites with a curve, as runs see them, of each split one.
        methods: names of the methods.
        alone: the one in which every site trains for itself.
        measures: of the task.

    Raises:
        ConfigError: training alone or every other method is not among the methods; a site has not more patients than
            the largest number; or the smallest is below a site's number of classes.
    """
    if alone not in methods or len(methods) < 2:
        raise ConfigError(
            f"--cases compares joining with training alone, so --methods needs {alone} and another method; it has "
            f"{', '.join(methods)}"
        )
    for datalist in datalists.values():
        patients = len({patient_of(case) for case in datalist.training})
        if cases[-1] >= patients:
            raise ConfigError(
                f"--cases {','.join(map(str, cases))}: {datalist.site} trains on {patients} patients, all of which the "
                f"comparison has anyway; give numbers below {patients}, or name other sites with --cases-at"
            )
        classes = len({case.label for case in datalist.training})
        if measures.by_class and cases[0] < classes:
            raise ConfigError(
                f"--cases {','.join(map(str, cases))}: {datalist.site} has patients of {classes} classes, so that "
                f"{cases[0]} cannot be of all; begin with {classes} or more"
            )
