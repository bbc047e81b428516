"""Every benchmark can be asked what it does."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from monai_fedlora.cli import build_parser
from monai_fedlora.commands.compare import split_settings
from monai_fedlora.commands.options import parse_settings
from monai_fedlora.federated.site_policy import site_policy
from monai_fedlora.methods import method_names

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("[a-z]*.py"))
OF_A_GPU = ["gpu"]
"""Measured on another machine, see docs/benchmarks.md; `make bench` leaves it out."""
REPEATED = [name for name in SCRIPTS if name not in OF_A_GPU]
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
RECIPES = [
    shlex.split(line)
    for line in (BENCHMARKS / "recipes.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


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
    ("given", "chosen"), [("side_tuning,local_epoch", ["side_tuning", "local_epoch"]), (None, REPEATED)]
)
def test_make_runs_those_that_are_asked_for(given: str | None, chosen: list[str], repository: Path) -> None:
    command = ["make", "--dry-run", "bench", *([f"BENCH={given}"] if given else [])]
    said = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("set -e; for name in")]
    assert sorted(line.removeprefix("set -e; for name in ").partition(";")[0].split()) == sorted(chosen)


EVIDENCE = [
    shlex.split(line)
    for line in (BENCHMARKS / "evidence.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def test_every_table_ends_with_a_comparison_that_the_command_knows() -> None:
    """What data prepares for a table is what its comparison reads, and each has a folder of its own."""
    outputs: dict[str, list[tuple[str, str, str | None]]] = {}
    for table, command, *arguments in EVIDENCE:
        parsed = build_parser().parse_args([command, *arguments])
        outputs.setdefault(table, []).append((command, str(parsed.output), getattr(parsed, "data", None)))
        if command == "compare" and parsed.methods != "all":
            split_settings(parse_settings(parsed.set))
            assert {entry.rpartition("=")[2] for entry in parsed.methods.split(",")} <= set(method_names())
    for table, steps in outputs.items():
        *prepared, (command, output, data) = steps
        assert (command, output) == ("compare", f"$TABLES/{table}")
        assert data in ({path for _, path, _ in prepared} or {None})


@pytest.mark.parametrize(
    ("table", "said"), [("nothing", "no table 'nothing'; TABLE= is one of"), ("clip", "REAL_DATA")]
)
def test_make_evidence_says_what_is_missing(table: str, said: str, repository: Path, tmp_path: Path) -> None:
    command = ["make", "--silent", "evidence", f"TABLE={table}", "STAMP=", f"TABLES={tmp_path}/tables"]
    environment = {name: value for name, value in os.environ.items() if name != "MONAI_FEDLORA_REAL_DATA"}
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    assert said in done.stdout
    assert not (tmp_path / "tables").exists()


def test_make_evidence_runs_a_tables_commands_in_order_and_stops_at_a_failure(repository: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "monai-fedlora"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >> "$TABLES/said"\ntest "$1" != "$FAILS"\n', encoding="utf-8")
    program.chmod(0o755)
    tables = tmp_path / "tables"
    command = ["make", "--silent", "evidence", "TABLE=clip", "STAMP=", f"BIN={program.parent}", f"TABLES={tables}"]
    for fails, ran in (("", ["data", "compare"]), ("data", ["data"])):
        environment = {**os.environ, "MONAI_FEDLORA_REAL_DATA": "/real", "FAILS": fails}
        done = subprocess.run(command, cwd=repository, capture_output=True, check=False, env=environment)
        assert (done.returncode == 0) == (not fails)
        lines = (tables / "said").read_text(encoding="utf-8").splitlines()
        assert [line.split()[0] for line in lines] == ran
        assert "--source /real/fed_isic2019" in lines[0]
        (tables / "said").unlink()


def settings_of(recipe: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a script would run with; it ends before it runs."""
    found: dict[str, Any] = {}
    parse = argparse.ArgumentParser.parse_args

    def end(parser: argparse.ArgumentParser) -> None:
        found.update(vars(parse(parser)))
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", end)
    monkeypatch.setattr(sys, "argv", recipe)
    with pytest.raises(SystemExit):
        loaded(recipe[0]).main()
    return {key: value for key, value in found.items() if value is not None}


def test_every_committed_result_has_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for recipe in RECIPES:
        settings = settings_of(recipe, monkeypatch)
        monkeypatch.undo()
        made += [path for path in RESULTS if path.name.startswith(recipe[0]) and fits(path, settings)]
    assert sorted(made) == RESULTS


def fits(path: Path, settings: dict[str, Any]) -> bool:
    """Whether a result was made with these settings, as far as it holds them."""
    held = json.loads(path.read_text(encoding="utf-8")).get("settings", {})
    return all(held[key] == value for key, value in settings.items() if key in held)


def test_every_script_has_a_recipe() -> None:
    assert sorted({recipe[0] for recipe in RECIPES}) == REPEATED


def test_make_says_which_benchmark_there_is_not(repository: Path) -> None:
    command = ["make", "--old-file=.venv/.installed-test", "bench", "BENCH=local"]  # without installing anything
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode != 0
    assert "has no local" in done.stdout


@pytest.mark.parametrize("name", ["upload", "many_sites", "frameworks"])
def test_what_runs_sites_of_a_few_cases_allows_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", "")  # without any the built-in limits hold

    def end(*_: Any) -> None:
        raise SystemExit

    module = loaded(name)
    monkeypatch.setattr(module, "run", end)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit):
        module.main()
    policy = site_policy()
    assert (policy.least_cases, policy.least_steps) == (1, 1)
    assert policy.source == str(BENCHMARKS / "policy.json")
