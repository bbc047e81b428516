"""Methods, backbones, readers, styles, rules and tasks by name: of this package, and those that other packages add.

Another package adds one by an entry point of the group ``monai_fedlora.methods``, ``.backbones``, ``.readers``,
``.styles``, ``.rules`` or ``.tasks`` under its name. The names are known from the installed packages' metadata; code of
a package is imported when its name is used, and only if this process trusts the package, see :func:`trust`. A plug-in
that cannot be used does not affect other names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from monai_fedlora.errors import ConfigError, PolicyError, nearest

KINDS = ("methods", "backbones", "readers", "styles", "rules", "tasks")
"""Kinds of plug-ins; the group of their entry points is ``monai_fedlora.<kind>``."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """An entry point of another package.

    Attributes:
        kind: one of :data:`KINDS`.
        name: name of the entry point.
        target: its object, ``module:attribute``.
        distribution: the package's name, as pip lists it.
        version: of the package.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return (
            f"{self.distribution} {self.version} (entry point {self.name} = {self.target} of monai_fedlora.{self.kind})"
        )

    def load(self) -> Any:
        """Import the object of the entry point.

        Raises:
            PolicyError: this process does not trust the package; nothing of it was imported.
            ConfigError: it cannot be imported, or there is no such attribute.
        """
        if _trust.names is not None and canonical(self.distribution) not in _trust.names:
            raise PolicyError(untrusted(f"{self.name!r} is code of {self}", _trust.source, self.distribution))
        module, _, attribute = self.target.partition(":")
        try:
            found: Any = import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:  # code of other packages can fail in any way
            raise ConfigError(
                f"{self.name!r} cannot be imported from {self} ({type(error).__name__}: {error}); mend or uninstall "
                "that package"
            ) from error
        return found


@cache
def plugins() -> tuple[Plugin, ...]:
    """Every entry point of other packages, sorted; looked up once per process."""
    found = [
        Plugin(kind=kind, name=entry.name, target=entry.value, distribution=entry.dist.name, version=entry.dist.version)
        for kind in KINDS
        for entry in entry_points(group=f"monai_fedlora.{kind}")
        if entry.dist is not None
    ]
    return tuple(sorted(found, key=lambda plugin: (plugin.kind, plugin.name, plugin.distribution)))


class Catalogue(Generic[T]):
    """Objects by name: those of this package and those that other packages add.

    Args:
        kind: one of :data:`KINDS`.
        word: word for one of the objects, in messages.
        built_in: the objects of this package by name; entries may be added later.
        problem: given a plug-in's object and its name, returns why it cannot be used, or None.
    """

    def __init__(
        self, kind: str, *, word: str, built_in: Mapping[str, T], problem: Callable[[Any, str], str | None]
    ) -> None:
        self._kind = kind
        self._word = word
        self._built_in = built_in
        self._problem = problem

    def names(self) -> list[str]:
        """All names, sorted, each once; nothing is imported."""
        return sorted({*self._built_in, *(plugin.name for plugin in self.plugins())})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or any(plugin.name == name for plugin in self.plugins())

    def plugin(self, name: str) -> Plugin | None:
        """The plug-in with a name; None for a name that is built in or unknown.

        Raises:
            ConfigError: two packages add the name, or a package adds one that is built in.
        """
        claims = [plugin for plugin in self.plugins() if plugin.name == name]
        if name in self._built_in and claims:
            raise ConfigError(
                f"the {self._word} {name!r} is built in, and {claims[0]} claims the name too; uninstall that package, "
                "or ask its authors for another name"
            )
        if len(claims) > 1:
            raise ConfigError(
                f"the {self._word} {name!r} is claimed by {' and by '.join(map(str, claims))}; uninstall one of them"
            )
        return claims[0] if claims else None

    def __getitem__(self, name: str) -> T:
        """The object with a name.

        Raises:
            ConfigError: the name is unknown (the nearest one is suggested), is added twice, or its plug-in cannot be
                used.
            PolicyError: it belongs to a plug-in that this process does not trust.
        """
        plugin = self.plugin(name)
        if plugin is None:
            if name not in self._built_in:
                raise ConfigError(f"no {self._word} is called {name!r}{nearest(name, self.names())}")
            return self._built_in[name]
        found = plugin.load()
        if (why := self._problem(found, name)) is not None:
            raise ConfigError(f"{name!r} cannot be used: {plugin} gives {why}; mend or uninstall that package")
        return found

    def problems(self) -> list[str]:
        """Problems with plug-ins' names and objects, a message each; imports the trusted plug-ins."""
        found = []
        for name in sorted({plugin.name for plugin in self.plugins()}):
            try:
                self[name]
            except (ConfigError, PolicyError) as error:
                found.append(str(error))
        return found

    def plugins(self) -> list[Plugin]:
        """The plug-ins of this kind, including those whose name is taken."""
        return [plugin for plugin in plugins() if plugin.kind == self._kind]


@dataclass(frozen=True, slots=True)
class _Trust:
    """Canonical names of the packages whose code may be imported (None: all installed ones), and where this is set."""

    names: frozenset[str] | None = None
    source: str = ""


_trust = _Trust()


def trust(names: Collection[str] | None, *, source: str) -> None:
    """Set which packages' code this process imports as plug-ins, from now on.

    By default a process trusts all installed packages. In processes of a federation, where a job comes from outside,
    the policy of the site or server sets which ones are trusted.

    Args:
        names: distributions, as pip lists them; None for all.
        source: where this is set, for messages.
    """
    global _trust
    _trust = _Trust(None if names is None else frozenset(map(canonical, names)), source)


@contextmanager
def trusting(names: Collection[str] | None, *, source: str) -> Iterator[None]:
    """Trust only these packages inside the block, see :func:`trust`."""
    global _trust
    before = _trust
    trust(names, source=source)
    try:
        yield
    finally:
        _trust = before


def canonical(distribution: str) -> str:
    """The normalised spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def untrusted(what: str, source: str, distribution: str) -> str:
    """The message that a policy does not trust the package of a plug-in."""
    return (
        f"plugins: {what}, which is not trusted here ({source}). Nothing of it was imported. If this end shall run its "
        f"code: monai-fedlora policy --output DIR --plugins {distribution}, where DIR is the local/ folder of its kit"
    )


def installed_version(name: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        found: Distribution = distribution(name)
    except (PackageNotFoundError, ValueError):
        return None
    return found.version


def code_of_package(name: str) -> str:
    """Hash of the code of all plug-ins of a distribution, see :func:`code_of`."""
    modules = sorted({plugin.target.partition(":")[0] for plugin in plugins() if plugin.distribution == name})
    return hashlib.sha256("".join(map(code_of, modules)).encode()).hexdigest()


@cache
def code_of(module: str) -> str:
    """Hash of the code and version of the plug-in that a module belongs to; stored results depend on it.

    Returns:
        Hexadecimal digits; empty for a module that belongs to no plug-in.
    """
    top = module.partition(".")[0]
    found = {(p.distribution, p.version) for p in plugins() if re.split("[.:]", p.target)[0] == top}
    if not found:
        return ""
    digest = hashlib.sha256(repr(sorted(found)).encode())
    spec = find_spec(top)
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    sources = [(path, path.relative_to(folder)) for folder in folders for path in sorted(folder.rglob("*.py"))]
    if spec and spec.origin and not folders:
        sources = [(Path(spec.origin), Path(Path(spec.origin).name))]
    for path, name in sources:
        content = path.read_bytes()
        digest.update(f"{name.as_posix()} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()
