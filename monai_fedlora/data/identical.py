"""Find images that several patients have in common, byte for byte."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from monai_fedlora.data.records import Record
from monai_fedlora.data.units import unit_of
from monai_fedlora.errors import DataError
from monai_fedlora.files import sha256

_HEAD = 4096


def link_identical(records: Sequence[Record]) -> list[Record]:
    """Join records with the same image to one unit, so that they are in one split, and add a note to them.

    Only files with the same size and the same first bytes are read completely. Files that cannot be read are skipped.

    Args:
        records: as a reader made them.

    Returns:
        The records in their order; joined ones have the first of their units in alphabetical order, and a note.

    Raises:
        DataError: end-diastole and end-systole of a patient are the same file or identical.
    """
    owners: dict[Path, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        for file in record.files():
            owners[file].append(number)
    groups = []
    for files in _identical(list(owners)):
        numbers = sorted({number for file in files for number in owners[file]})
        for record in (records[number] for number in numbers):
            if len(set(files) & set(record.files())) > 1:
                raise DataError(
                    f"{record.origin}: ED and ES, {' and '.join(map(str, record.files()))}, are the same image"
                )
        groups.append(numbers)
    return _linked(records, [numbers for numbers in groups if len(numbers) > 1])


def _linked(records: Sequence[Record], groups: Sequence[Sequence[int]]) -> list[Record]:
    parent = {unit_of(record): unit_of(record) for record in records}

    def root(unit: str) -> str:
        while parent[unit] != unit:
            unit = parent[unit]
        return unit

    labels: dict[int, str] = {}
    for numbers in groups:
        first, *others = sorted({root(unit_of(records[number])) for number in numbers})
        parent |= dict.fromkeys(others, first)
        differ = len({records[number].group for number in numbers}) > 1
        labels |= dict.fromkeys(numbers, " and has another label there" if differ else "")
    joined = Counter(root(unit) for unit in parent)
    result = []
    for number, record in enumerate(records):
        unit = root(unit_of(record))
        if number in labels:
            note = (
                f"the same image, byte for byte, belongs to another subject too{labels[number]}; they stay in one split"
            )
            record = replace(record, notes=(*record.notes, note))
        result.append(replace(record, unit=unit) if joined[unit] > 1 else record)
    return result


def _identical(files: Sequence[Path]) -> list[list[Path]]:
    """Group files by their content; a file that is like no other is a group of its own."""
    groups = [list(files)]
    for key in (os.path.getsize, _head, sha256):
        groups = [part for group in groups for part in (_split(group, key) if len(group) > 1 else [group])]
    return groups


def _split(files: Sequence[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    parts: dict[Hashable, list[Path]] = defaultdict(list)
    for file in files:
        try:
            parts[key(file)].append(file)
        except OSError:
            parts[file].append(file)
    return list(parts.values())


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_HEAD)
