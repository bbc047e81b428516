"""Cases as a deterministic transform leaves them: computed once, kept in memory or on the site's own disk.

Labels, names and flags are read at the start; an image is opened when it is indexed. Cases for which there is no room
are read and transformed again whenever they are indexed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.utils.enums import CommonKeys as Keys
from rich.progress import track
from torch import Tensor

from monai_fedlora.engines.distributed import rank, world_size
from monai_fedlora.engines.left_out import say_left_out
from monai_fedlora.engines.memory import Memory, active_memory, fingerprint, size_of
from monai_fedlora.engines.store import Entry, Store, key_of
from monai_fedlora.errors import FedLoraError
from monai_fedlora.out_of_memory import tell_out_of_memory

Case = Mapping[str, Any]
_GIVEN = "given/"
_NONE = torch.empty(0)


class Preprocessed:
    """Cases after a deterministic transform.

    A case is found by its values, by size and time of change of the files that they name, and by the transform: in the
    :class:`~monai_fedlora.engines.memory.Memory` in use, else in the store. Without either, and where the transform or
    a case cannot be described, this object keeps them in memory itself. Cases that nobody has kept are read at once;
    how many find no room is said then.

    Args:
        data: one dictionary per case.
        transform: deterministic MONAI transforms.
        store: of the site.
        progress: show a bar while cases are read.

    Attributes:
        keys: of the cases, equal for equal ones in every process; None where a case or the transform is unknown.
        rest: what each case holds beside its image.

    Raises:
        DataError: as the transform does for a file that cannot be used.
    """

    def __init__(
        self, data: Sequence[Case], transform: Sequence[Callable] | Callable, *, store: Store | None, progress: bool
    ) -> None:
        self._data = data
        self._steps = transform if callable(transform) else Compose(list(transform))
        self._progress = progress
        self._own = Memory()
        self.keys = _keys(data, self._steps)
        self._keeper = (active_memory() or store) if self.keys else None
        place = key_of("rest", *self.keys or ())
        if self.keys and self._keeper and (place in self._keeper or self._can_be_kept(self.keys[0])):
            self.rest: list[dict[str, Any]] = [{} for _ in data]
            for name, tensor in self._keeper.recall(place, self._read_all).items():
                index, _, key = name.partition("/")
                given = key.removeprefix(_GIVEN)
                self.rest[int(index)][given] = tensor.clone() if given == key else data[int(index)][given]
        else:
            self._keeper = None
            found = {index: _without_image(self._case(index)) for index in self._indices()}
            self.rest = [found[index] for index in range(len(data))]
        names: Iterable[Hashable] = self.keys if self._keeper and self.keys else range(len(data))
        left_out = (self._keeper or self._own).left_out
        say_left_out(
            [left_out[name] for name in names if name in left_out],
            what="preprocessed cases",
            counted=f"of {len(data)}",
            keeper=self._keeper or self._own,
        )

    def image(self, index: int) -> Any:
        """The image of a case; it is shared, so callers must not modify it."""
        return self._case(index)[Keys.IMAGE]

    def _case(self, index: int) -> Case:
        if self._keeper is None or self.keys is None:
            return self._own.recall(
                index,
                lambda: as_tensors(self._read(index)),
                measure=lambda case: size_of(
                    [value for value in case.values() if not _is_given(value, self._data[index])]
                ),
            )
        return self._keeper.recall(self.keys[index], lambda: self._as_entry(index))

    def _read_all(self) -> Entry:
        """Preprocess the cases that are not kept yet, and return all cases without their images."""
        found = {}
        for index in self._indices():
            found.update({f"{index}/{key}": value for key, value in _without_image(self._case(index)).items()})
        return found

    def _indices(self) -> Iterator[int]:
        """All cases: first this process's, then, from the end, those that others of the site begin with and keep."""
        places = ((index, (index - rank()) % world_size()) for index in range(len(self._data)))
        order = [
            index for index, _ in sorted(places, key=lambda found: (found[1], -found[0] if found[1] else found[0]))
        ]
        yield from track(order, "reading cases", disable=not self._progress)

    def _as_entry(self, index: int) -> Entry:
        """The tensors of a case, and the names of the values that stay as they were given."""
        return {
            key if isinstance(value, Tensor) else _GIVEN + key: value.contiguous()
            if isinstance(value, Tensor)
            else _NONE
            for key, value in as_tensors(self._read(index)).items()
        }

    def _read(self, index: int) -> Case:
        try:
            case: Case = self._steps(dict(self._data[index]))
        except RuntimeError as error:  # MONAI tells which transform failed, and hides what this package has to say
            tell_out_of_memory(error, "preprocessing a case")
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, FedLoraError):
                cause = cause.__cause__
            if cause is None:
                raise
            raise cause from None
        return case

    def _can_be_kept(self, first: str) -> bool:
        """Whether all that the transform changes in a case is a tensor; the first case tells, unless it is kept."""
        if self._keeper and first in self._keeper:
            return True
        before, after = self._data[0], self._read(0)
        plain = {key: value for key, value in after.items() if not isinstance(value, Tensor)}
        return Keys.IMAGE not in plain and all(key in before and value == before[key] for key, value in plain.items())


def _keys(data: Sequence[Case], steps: Callable) -> list[str] | None:
    known, described = fingerprint(steps), [fingerprint(dict(item)) for item in data]
    if not data or known is None or None in described:
        return None
    return [key_of("case", known, case, *_files(item)) for item, case in zip(data, described, strict=True)]


def _files(value: Any) -> Iterator[tuple[str, int, int, int]]:
    """Path, bytes and times of files and folders that a case names, and of what is in these.

    Beside the time that a file says it was written, which a copy can bring along, the one at which it came to be here.
    """
    if isinstance(value, Mapping):
        yield from _files(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _files(part)
    elif isinstance(value, str) and os.path.exists(value):
        inside = sorted(entry.path for entry in os.scandir(value)) if os.path.isdir(value) else []
        for path in (value, *inside):
            status = os.stat(path)
            yield path, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_given(value: Any, given: Case) -> bool:
    """Whether a tensor or an array is one of those given, which stay in memory whether it is kept or not."""
    return any(value is one or (isinstance(one, Tensor) and _start(one) == _start(value)) for one in given.values())


def _start(value: Any) -> int | None:
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else None


def _without_image(case: Case) -> dict[str, Any]:
    return {key: value for key, value in case.items() if key != Keys.IMAGE}


def as_tensors(item: Mapping[str, Any]) -> dict[str, Any]:
    """A case without MONAI's notes about its tensors."""
    return {key: value.as_tensor() if isinstance(value, MetaTensor) else value for key, value in item.items()}
