"""A faster start for a site's process.

In the simulator a site's process can live for a single task, and half of that life is its start. MONAI, Ignite and PEFT
import packages for features that training at a site does not use: whole training frameworks to recognise their objects,
and scientific libraries for single transforms. Importing the three without them takes a third of the time.
"""

from __future__ import annotations

import gc
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_ABSENT = (
    "matplotlib",
    "mlflow",
    "pandas",
    "scipy.signal",
    "scipy.stats",
    "sklearn",
    "tensorboard",
    "torch.utils.tensorboard",
)
"""What MONAI does without where it is not installed."""

_STOOD_IN = ("accelerate", "torch.distributed.optim", "transformers")
"""Where PEFT, Ignite and MONAI find classes to compare with, of objects that a site does not have."""


def import_libraries() -> None:
    """Import MONAI, Ignite and PEFT without the packages that training at a site does not use.

    These stay importable for everybody else. Does nothing where MONAI is imported already.
    """
    if "monai" in sys.modules:
        return
    with _absent(_ABSENT), _stood_in(_STOOD_IN), _uncollected():
        import monai.bundle
        import monai.data
        import monai.engines
        import monai.transforms  # noqa: F401
    import_peft()


def import_peft() -> None:
    """Import PEFT alone in the same way, which is all that a server needs.

    Does nothing where it is imported already.
    """
    if "peft" in sys.modules:
        return
    with _absent(_ABSENT), _stood_in(_STOOD_IN), _uncollected():
        import peft  # noqa: F401
        import torch.distributed.tensor  # PEFT takes it for imported  # noqa: F401


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the garbage collector, which would look again and again through modules that all stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _absent(names: Sequence[str]) -> Iterator[None]:
    """Let modules that are not imported yet be impossible to import."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail at once
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _stood_in(names: Sequence[str]) -> Iterator[None]:
    """Let packages that are not imported yet be found as :class:`_StandIn`.

    Afterwards an import finds the package itself.
    """
    finder = _Finder([name for name in names if name not in sys.modules])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn):
                del sys.modules[name]


class _StandIn(ModuleType):
    """A module in which every public name is an empty class, of which nothing is an instance."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return importlib.metadata.version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {"__module__": self.__name__})
        setattr(self, name, value)
        return value


class _Finder(MetaPathFinder, Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Claim the packages and everything in them."""
        claimed = any(fullname == name or fullname.startswith(f"{name}.") for name in self._names)
        return ModuleSpec(fullname, self, is_package=True) if claimed else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make an empty stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing runs."""
