"""The command line: quick help, errors in one line, exit codes."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import monai_fedlora
from monai_fedlora import cli, commands
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.files import write_json


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A command called ``probe``; tests set its ``run``."""
    module = ModuleType("monai_fedlora.commands.probe")
    vars(module).update(add_parser=lambda subparsers: subparsers.add_parser("probe"), run=lambda args: 0)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cli, "COMMANDS", ("probe",))
    return module


def raising(error: BaseException) -> object:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_is_that_of_the_command(probe: ModuleType, code: int) -> None:
    vars(probe)["run"] = lambda args: code
    assert cli.main(["probe"]) == code


@pytest.mark.parametrize("error", [ConfigError("rank 0 is too small; use 1 or more"), PrivacyError("blocked")])
def test_expected_error_is_one_line_without_traceback(
    probe: ModuleType, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    vars(probe)["run"] = raising(error)
    assert cli.main(["probe"]) == cli.EXIT_ERROR == 2
    output = capsys.readouterr()
    assert output.err == f"error: {error}\n"
    assert output.out == ""


@pytest.mark.parametrize("path", ["file", "file/folder"])
def test_file_in_place_of_a_folder_is_one_line_that_names_it(
    probe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    (tmp_path / "file").write_text("mine")
    vars(probe)["run"] = lambda args: write_json(tmp_path / path / "policy.json", {})
    assert cli.main(["probe"]) == cli.EXIT_ERROR
    line = capsys.readouterr().err
    assert line.startswith(f"error: {tmp_path / 'file'}") and line.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(OSError, match="file"):
        cli.main(["--debug", "probe"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("simulat jobs/x --workspace w", "argument COMMAND: 'simulat' is unknown; did you mean 'simulate'?"),
        ("simulate jobs/x --worksapce w", "--workspace; --worksapce is unknown; did you mean '--workspace'?"),
        ("methods --clases 3", "unrecognized arguments: --clases 3; did you mean '--classes'?"),
        ("data adcd", "argument DATASET: 'adcd' is unknown; did you mean 'acdc'?"),
        ("job x --output y --wire flot16", "argument --wire: 'flot16' is unknown; did you mean 'float16'?"),
        ("check --zzz", "the following arguments are required: bundle; --zzz is unknown"),
    ],
)
def test_mistyped_word_brings_the_one_that_was_meant(capsys: pytest.CaptureFixture[str], given: str, said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(given.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_is_told(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([option])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"monai-fedlora {monai_fedlora.__version__}\n")


def test_debug_keeps_the_traceback(probe: ModuleType) -> None:
    vars(probe)["run"] = raising(ConfigError("bad"))
    with pytest.raises(ConfigError, match="bad"):
        cli.main(["--debug", "probe"])


def test_unexpected_error_is_not_hidden(probe: ModuleType) -> None:
    vars(probe)["run"] = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["probe"])


def test_too_little_memory_is_one_line(probe: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    vars(probe)["run"] = raising(MemoryError("Unable to allocate 8.00 EiB for an array"))
    assert cli.main(["probe"]) == cli.EXIT_ERROR
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory while running probe (Unable to allocate 8.00 EiB for an array); ")


def test_interrupt_exits_as_shells_expect(probe: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    vars(probe)["run"] = raising(KeyboardInterrupt())
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_error_is_red_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli._red("error:") == "\033[31merror:\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli._red("error:") == "error:"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"monai-fedlora {monai_fedlora.__version__}\n"


def test_a_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([])
    assert exit_.value.code == 2
    assert "usage: monai-fedlora" in capsys.readouterr().err


def test_every_command_module_is_offered() -> None:
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    parts = {name for name in modules for other in modules if name.startswith(f"{other}_")}  # data_phantom: of data
    commanding = {name for name in modules if hasattr(importlib.import_module(f"{commands.__name__}.{name}"), "run")}
    assert commanding - parts == set(cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: monai-fedlora {command}" in capsys.readouterr().out


def test_help_needs_less_than_a_second_and_lists_every_command() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(
        [sys.executable, "-m", "monai_fedlora.cli", "--help"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 1
    for command in cli.COMMANDS:
        assert f"\n    {command} " in process.stdout
