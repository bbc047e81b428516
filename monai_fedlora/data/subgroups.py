"""Subgroups of patients, such as women and men, from columns of a source's table.

They stay beside the site's cases: no training item, update or message holds them. A comparison on one machine looks
them up to measure how well a model does in each.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai_fedlora.data.cases import SPLITS, Case, Datalist
from monai_fedlora.data.records import Record
from monai_fedlora.errors import ConfigError, DataError, nearest

MOST_SUBGROUPS = 10
"""Largest number of subgroups of a column (ours); a column with more is measured in bins."""
_NOT_GIVEN = ("", "unknown", "n/a", "na", "nan", "null", "none")
"""What a cell says that says nothing, besides what is empty in a csv anyway."""

Subgroups = tuple[tuple[str, str], ...]
"""Of a patient, the columns that say something and what they say, sorted."""


def check_bins(column: str, edges: Sequence[float] | None) -> None:
    """Refuse edges that divide nothing.

    Raises:
        ConfigError: they are not growing finite numbers, or there is none.
    """
    if edges is None:
        return
    if not edges or not all(map(math.isfinite, edges)) or list(edges) != sorted(set(edges)):
        raise ConfigError(
            f"subgroup {column}: the edges {', '.join(f'{edge:g}' for edge in edges) or 'are missing'}; give growing "
            f"numbers, such as {column}=40,60 for below 40, 40 to below 60, and 60 and above"
        )
    if len(edges) >= MOST_SUBGROUPS:
        raise ConfigError(f"subgroup {column}: {len(edges)} edges make too many subgroups; give fewer")


def bin_name(value: float, edges: Sequence[float]) -> str:
    """The bin of a number: a bin begins with its lower edge and ends below its upper one."""
    below = [edge for edge in edges if edge <= value]
    if not below:
        return f"below {edges[0]:g}"
    if len(below) == len(edges):
        return f"{edges[-1]:g} and above"
    return f"{below[-1]:g} to below {edges[len(below)]:g}"


def find_subgroups(
    records: Sequence[Record], wanted: Mapping[str, Sequence[float] | None]
) -> tuple[dict[str, Subgroups], list[str]]:
    """Read the subgroups of every record.

    Words that differ in capitals alone are one subgroup, written small. A patient of whom a column says nothing has no
    subgroup in it.

    Args:
        records: of a source.
        wanted: by column the edges of bins, or None to take what the column says.

    Returns:
        By subject its subgroups, and a note for each column.

    Raises:
        ConfigError: no record has such a column (the nearest is named), or edges divide nothing.
        DataError: a cell of a column with bins is no number, a column without has more than
            :data:`MOST_SUBGROUPS` different words, or every cell is empty.
    """
    columns = list(dict.fromkeys(name for record in records for name in record.columns if name))
    found: dict[str, list[tuple[str, str]]] = {record.subject: [] for record in records}
    notes = []
    for column, edges in wanted.items():
        check_bins(column, edges)
        if column not in columns:
            what = "the source has no such column" if columns else "this source has no table with such a column"
            raise ConfigError(f"subgroup {column!r}: {what}{nearest(column, columns)}")
        counts: Counter[str] = Counter()
        for record in records:
            name = _name(record, column, edges)
            counts[name or "not given"] += 1
            if name:
                found[record.subject].append((column, name))
        if len(counts) - ("not given" in counts) > MOST_SUBGROUPS:
            raise DataError(
                f"subgroup {column}: {len(counts)} different values; give the edges of bins, such as {column}=40,60"
            )
        if set(counts) == {"not given"}:
            raise DataError(f"subgroup {column}: the column is empty for every patient here")
        listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: pair[0]))
        notes.append(f"subgroup {column}: {listed}")
    return {subject: tuple(sorted(said)) for subject, said in found.items()}, notes


def with_subgroups(datalist: Datalist, found: Mapping[str, Subgroups]) -> Datalist:
    """A datalist whose cases have these subgroups."""
    return _changed(datalist, lambda case: found.get(case.subject, ()))


def without_subgroups(datalist: Datalist) -> Datalist:
    """A datalist as it would be if nobody had asked for subgroups."""
    return _changed(datalist, lambda case: ())


def _changed(datalist: Datalist, subgroups: Callable[[Case], Subgroups]) -> Datalist:
    splits: dict[str, Any] = {
        split: tuple(dataclasses.replace(case, subgroups=subgroups(case)) for case in datalist.cases(split))
        for split in SPLITS
    }
    return dataclasses.replace(datalist, **splits)


def _name(record: Record, column: str, edges: Sequence[float] | None) -> str:
    text = record.columns.get(column, "").strip()
    if text.casefold() in _NOT_GIVEN:
        return ""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if edges is None:
        return f"{number:.15g}" if math.isfinite(number) else text.casefold()
    if not math.isfinite(number):
        raise DataError(f"{record.origin}: {column} is {text!r:.80}, which is in no bin; write a number, or nothing")
    return bin_name(number, edges)
