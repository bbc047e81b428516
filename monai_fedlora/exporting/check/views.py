"""Descriptions of tensors in a file: views of storages."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.words import shortened

_LARGEST = 1 << 40
_MOST_DIMENSIONS = 16


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A one-dimensional array of elements.

    Attributes:
        key: name of its record.
        kind: type of an element, as the file calls it.
        item: bytes per element.
        count: number of elements.
    """

    key: str
    kind: str
    item: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= _LARGEST:
            raise ExportError(f"has a storage of {self.count} elements")

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.item * self.count


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor: the element at an index is that of the storage at ``offset`` plus the sum of index times stride.

    Raises:
        ExportError: it exceeds its storage, or has more elements than that.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        plain = all(type(number) is int and 0 <= number <= _LARGEST for number in numbers)
        if not plain or len(self.size) != len(self.stride) or len(self.size) > _MOST_DIMENSIONS:
            raise ExportError(f"has a tensor of size {shortened(self.size)} with strides {shortened(self.stride)}")
        if max(self.end, math.prod(self.size)) > self.storage.count:
            raise ExportError(
                f"has a tensor of size {shortened(self.size)} that reaches out of its storage {self.storage.key}"
            )

    @property
    def end(self) -> int:
        """Number of elements of the storage up to the last one of the tensor."""
        if 0 in self.size:
            return self.offset
        return self.offset + 1 + sum((length - 1) * step for length, step in zip(self.size, self.stride, strict=True))
