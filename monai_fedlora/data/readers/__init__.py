"""Readers of published data sets: each module of this folder reads the data set of its name and defines ``READER``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from monai_fedlora.catalogues import Catalogue
from monai_fedlora.data.published_set import Reader


class _Modules(Mapping[str, Reader]):
    """The readers of this folder; a module is imported when its reader is used."""

    _names = tuple(module.name for module in iter_modules(__path__))

    def __getitem__(self, name: str) -> Reader:
        if name not in self._names:
            raise KeyError(name)
        reader: Reader = import_module(f"{__name__}.{name}").READER
        return reader

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _problem(found: Any, name: str) -> str | None:
    return None if isinstance(found, Reader) else f"{found!r:.80}, which is no monai_fedlora.data.published_set.Reader"


READERS: Catalogue[Reader] = Catalogue("readers", word="data set", built_in=_Modules(), problem=_problem)
"""All readers by name, as in ``monai-fedlora data NAME``."""
