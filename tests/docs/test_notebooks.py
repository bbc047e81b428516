"""The notebooks of the documentation run from their first cell to the last, and what they assert holds."""

from __future__ import annotations

import os
import runpy
import socket
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.environment import POLICY

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
ON_REAL_DATA = ("cine", "photographs-with-clip")
NAMES = sorted(path.stem for path in FOLDER.glob("*.md"))


def run_notebook(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a notebook's cells in one namespace, in a folder and without a network, and return the namespace."""
    jupytext = pytest.importorskip("jupytext")
    cells = [cell.source for cell in jupytext.read(FOLDER / f"{name}.md").cells if cell.cell_type == "code"]
    program = folder / f"{name}.py"
    program.write_text("\n\n".join(cells), encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(socket.socket, "connect", _refused)
    monkeypatch.setenv(POLICY, os.environ[POLICY])  # to have it back, whatever the notebook makes of it
    return runpy.run_path(str(program))


def _refused(*_: Any) -> None:
    raise AssertionError("a notebook asked another machine for something")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_on_made_up_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONAI_FEDLORA_REAL_DATA", raising=False)
    assert run_notebook(name, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", ON_REAL_DATA)
def test_a_notebook_runs_on_real_data(
    name: str, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_notebook(name, tmp_path, monkeypatch)["REAL"] == str(real_data)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_in_jupyter(name: str) -> None:
    notebook = pytest.importorskip("jupytext").read(FOLDER / f"{name}.md")
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert any(cell.cell_type == "code" for cell in notebook.cells)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            compile(cell.source, f"{name}, cell {number}", "exec")
