"""Preprocessed cases that are read from the site's disk instead of being preprocessed again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.transforms import Compose
from rich.progress import track
from torch import Tensor

from monai_fedlora.engines.memory import fingerprint
from monai_fedlora.engines.store import Entry, Store, key_of

Case = Mapping[str, Any]


class StoredCases:
    """Cases as a deterministic transform leaves them, one file each.

    A case is found by its values, by size and time of change of the files that they name, and by the transform. One
    that cannot be written stays in memory.

    Args:
        data: the cases.
        transform: from such a case to one with the same values, some of them replaced by tensors.
        keys: of the cases in the store.
        store: where they are kept.
    """

    def __init__(
        self, data: Sequence[Case], transform: Callable[[Any], Case], *, keys: Sequence[str], store: Store
    ) -> None:
        self._data = data
        self._transform = transform
        self._keys = keys
        self._store = store
        self._unwritten: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self._unwritten.get(index) or self._store.recall(self._keys[index], lambda: self._make(index))
        return {**self._data[index], **entry}

    def fill(self, *, progress: bool) -> None:
        """Preprocess what is not in the store yet.

        Raises:
            DataError: as the transform does for a file that cannot be used.
        """
        for index in track(range(len(self)), "reading cases", disable=not progress):
            if self._keys[index] not in self._store:
                entry = self[index]
                if self._keys[index] not in self._store:
                    self._unwritten[index] = {key: value for key, value in entry.items() if isinstance(value, Tensor)}

    def _make(self, index: int) -> Entry:
        case = self._transform(dict(self._data[index]))
        return {key: value.contiguous() for key, value in case.items() if isinstance(value, Tensor)}


def stored_cases(
    data: Sequence[Case], transform: Sequence[Callable] | Callable, *, store: Store, progress: bool
) -> StoredCases | None:
    """The cases by way of a store, all of them preprocessed; None where the store cannot know the transform.

    A transform is known if its settings can be listed, and if all that it changes in a case is a tensor.

    Args:
        data: one dictionary per case.
        transform: deterministic MONAI transforms.
        store: of the site.
        progress: show a bar.

    Raises:
        DataError: as the transform does for a file that cannot be used.
    """
    steps = transform if callable(transform) else Compose(list(transform))
    known = fingerprint(steps)
    described = [fingerprint(dict(item)) for item in data]
    if not data or known is None or None in described:
        return None
    keys = [key_of("case", known, case, *_files(item)) for item, case in zip(data, described, strict=True)]
    if keys[0] not in store and not _changes_tensors_alone(data[0], steps(dict(data[0]))):
        return None
    cases = StoredCases(data, steps, keys=keys, store=store)
    cases.fill(progress=progress)
    return cases


def _files(item: Case) -> list[tuple[str, int, int]]:
    """Key, size in bytes and time of change in nanoseconds of the files that a case names."""
    found = []
    for key, value in sorted(item.items()):
        if isinstance(value, str) and os.path.isfile(value):
            status = os.stat(value)
            found.append((key, status.st_size, status.st_mtime_ns))
    return found


def _changes_tensors_alone(before: Case, after: Case) -> bool:
    plain = {key: value for key, value in after.items() if not isinstance(value, Tensor)}
    return any(key not in plain for key in after) and all(
        key in before and value == before[key] for key, value in plain.items()
    )
