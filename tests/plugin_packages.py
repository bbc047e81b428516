"""Packages with plug-ins, installed for one test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from monai_fedlora import catalogues

Install = Callable[..., Path]


def _forget() -> None:
    catalogues.plugins.cache_clear()
    catalogues.code_of.cache_clear()


@pytest.fixture
def looked_up_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installed packages are looked for again, all are trusted, and what was found is forgotten afterwards."""
    monkeypatch.setattr(catalogues, "_trust", catalogues._Trust())
    _forget()
    yield
    monkeypatch.undo()
    _forget()


@pytest.fixture
def install(tmp_path: Path, looked_up_anew: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package with plug-ins for one test: its name, entry points and modules; returns its folder."""
    made: list[str] = []

    def add(name: str, entries: Mapping[str, str], modules: Mapping[str, str], *, version: str = "1.0") -> Path:
        """``entries`` are ``kind:name`` to ``module:attribute``, ``modules`` names to source text."""
        folder = tmp_path / "installed" / name
        about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        groups = ((kind, named, target) for key, target in entries.items() for kind, _, named in [key.partition(":")])
        lines = [f"[monai_fedlora.{kind}]\n{named} = {target}\n" for kind, named, target in groups]
        (about / "entry_points.txt").write_text("".join(lines))
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        made.extend(modules)
        monkeypatch.syspath_prepend(folder)
        _forget()
        return folder

    yield add
    for module in made:
        sys.modules.pop(module, None)
