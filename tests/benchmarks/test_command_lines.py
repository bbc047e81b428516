"""Every benchmark can be asked what it does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("[a-z]*.py"))


def loaded(name: str) -> ModuleType:
    """A script as a module, which does not run."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # data classes look for their module there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_explains_its_settings(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        loaded(name).main()
    assert end.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "chosen"), [("side_tuning,local_epoch", ["side_tuning", "local_epoch"]), (None, SCRIPTS)]
)
def test_make_runs_those_that_are_asked_for(given: str | None, chosen: list[str], repository: Path) -> None:
    command = ["make", "--dry-run", "bench", *([f"BENCH={given}"] if given else [])]
    said = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("set -e; for name in")]
    assert sorted(line.removeprefix("set -e; for name in ").partition(";")[0].split()) == sorted(chosen)
