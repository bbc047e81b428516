"""How well a method does in subgroups of patients, such as women and men, and how far these are apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.paired_difference import Array, Cell, difference
from monai_fedlora.comparison.patient_draws import DRAWS, CasesTested
from monai_fedlora.data.cases import Datalist
from monai_fedlora.measures.agreement import FEWEST_PATIENTS

NOT_GIVEN = "not given"
"""Patients of whom a column says nothing."""
FEWER = f"fewer than {FEWEST_PATIENTS}"
"""How many patients a subgroup has of which nothing is told."""
_SEED = 5
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class SubgroupFigure:
    """A method in one subgroup.

    Attributes:
        name: of the subgroup.
        patients: tested; None for fewer than :data:`~monai_fedlora.measures.agreement.FEWEST_PATIENTS`, of whom
            nothing is told.
        value: the key metric, of patients of all sites together; None where the subgroup lacks a class that counts.
        low, high: 95 % interval over its patients, and over runs where there are several; None where all agree.
    """

    name: str
    patients: int | None
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class SubgroupFigures:
    """A method in the subgroups of a column.

    Attributes:
        method: registered name.
        column: of the source's table.
        classes: over which the figures are means: those that every subgroup has patients of, so that a subgroup with
            other diseases is not compared by them; empty in a task without classes.
        figures: of every subgroup, by name; patients of whom nothing is given come last, if there are any.
        gap: the largest difference between two subgroups, leaving out those last; None with less than two figures.
        best, worst: the subgroups that are so far apart.
        by_chance: what the gap stays below in 95 % of random divisions of the same patients, each class of a site
            divided in the same numbers; a gap below that shows nothing.
    """

    method: str
    column: str
    classes: tuple[str, ...]
    figures: tuple[SubgroupFigure, ...]
    gap: float | None = None
    best: str | None = None
    worst: str | None = None
    by_chance: float | None = None


def subgroup_columns(datalists: Mapping[str, Datalist]) -> list[str]:
    """The columns of which some case of some site has a subgroup."""
    cases = (case for datalist in datalists.values() for _, case in datalist.all_cases())
    return list(dict.fromkeys(column for case in cases for column, _ in case.subgroups))


def subgroup_figures(
    method: str, tested: CasesTested, column: str, datalists: Mapping[str, Datalist], measures: Measures
) -> SubgroupFigures:
    """Measure a method in every subgroup of a column."""
    said = {
        (site, case.subject): dict(case.subgroups).get(column, NOT_GIVEN)
        for site, datalist in datalists.items()
        for _, case in datalist.all_cases()
    }
    units = _units(tested, said, measures)
    patients: dict[str, set[tuple[str, str]]] = defaultdict(set)
    labels: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        patients[unit.subgroup].add((unit.site, unit.patient))
        labels[unit.subgroup].add(unit.label)
    names = sorted(patients, key=lambda name: (name == NOT_GIVEN, name))
    enough = [name for name in names if len(patients[name]) >= FEWEST_PATIENTS]
    named = [name for name in enough if name != NOT_GIVEN]
    common = sorted(set.intersection(*(labels[name] for name in named))) if named else []
    counted = [unit for unit in units if unit.label in common]
    figures = tuple(
        _figure(name, len(patients[name]), [unit for unit in counted if unit.subgroup == name], common, measures)
        if name in enough
        else SubgroupFigure(name=name, patients=None)
        for name in names
    )
    found = SubgroupFigures(
        method=method, column=column, classes=tuple(common) if measures.by_class else (), figures=figures
    )
    values = {each.name: each.value for each in figures if each.name in named and each.value is not None}
    if len(values) < 2:
        return found
    best, worst = (pick(values, key=lambda name: measures.better(values[name], 0.0)) for pick in (max, min))
    return SubgroupFigures(
        method=method,
        column=column,
        classes=found.classes,
        figures=figures,
        gap=abs(values[best] - values[worst]),
        best=best,
        worst=worst,
        by_chance=_by_chance([unit for unit in counted if unit.subgroup in values]),
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Unit:
    """A patient's cases of a class in a subgroup, with their mean score by run."""

    site: str
    label: str
    patient: str
    subgroup: str
    scores: Array
    cases: int


def _units(tested: CasesTested, said: Mapping[tuple[str, str], str], measures: Measures) -> list[_Unit]:
    places: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for place, case in enumerate(tested.cases):
        label = case.label if measures.by_class else ""
        places[case.site, label, case.patient, said.get((case.site, case.case), NOT_GIVEN)].append(place)
    return [_Unit(*unit, tested.scores[own].mean(axis=0), len(own)) for unit, own in sorted(places.items())]


def _figure(
    name: str, patients: int, units: Sequence[_Unit], classes: Sequence[str], measures: Measures
) -> SubgroupFigure:
    cells = [[unit for unit in units if unit.label == label] for label in classes]
    if not cells or not all(cells):
        return SubgroupFigure(name=name, patients=patients)
    found = difference(
        [
            Cell(
                weight=1 / len(classes),
                scores=np.array([unit.scores for unit in own]),
                sizes=[unit.cases for unit in own],
                group=label,
            )
            for label, own in zip(classes, cells, strict=True)
        ]
    )
    value, margin = float(found.value), float(found.margin)
    if np.isnan(margin) or margin < _ROUNDING:
        return SubgroupFigure(name=name, patients=patients, value=value)
    low, high = value - margin, value + margin
    if measures.by_class:
        low, high = max(low, 0.0), min(high, 1.0)
    return SubgroupFigure(name=name, patients=patients, value=value, low=low, high=high)


def _by_chance(units: Sequence[_Unit]) -> float:
    """The 95th percentile of gaps after subgroups were dealt out anew within site and class."""
    rng = np.random.default_rng(_SEED)
    groups, labels, strata = (
        np.unique(keys, return_inverse=True)[1]
        for keys in (
            [unit.subgroup for unit in units],
            [unit.label for unit in units],
            [f"{unit.site}\n{unit.label}" for unit in units],
        )
    )
    scores, sizes = np.array([unit.scores.mean() for unit in units]), np.array([unit.cases for unit in units])
    order = np.argsort(strata, kind="stable")
    gaps = []
    for _ in range(DRAWS):
        dealt = np.empty_like(groups)
        dealt[order] = groups[np.lexsort((rng.random(len(groups)), strata))]
        gaps.append(_gap(dealt, labels, scores * sizes, sizes))
    return float(np.quantile(gaps, 0.95))


def _gap(groups: npt.NDArray[np.intp], labels: npt.NDArray[np.intp], sums: Array, sizes: Array) -> float:
    shape = groups.max() + 1, labels.max() + 1
    place = groups * shape[1] + labels
    total, count = (np.bincount(place, weights=found, minlength=shape[0] * shape[1]) for found in (sums, sizes))
    means = (total / count).reshape(shape).mean(axis=1)
    return float(means.max() - means.min())
