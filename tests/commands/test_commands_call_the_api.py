"""Commands that Python offers too do their work through the same function."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import monai_fedlora

COMMANDS = Path(str(monai_fedlora.__file__)).parent / "commands"
LIGHT = ("monai_fedlora.api.", "monai_fedlora.commands.", "monai_fedlora.errors")
SHOWN = {
    "audit": set(),
    "compare": {"comparison.runner", "comparison.statistics", "rendering.tables"},
    "export": {
        *("clinic.trust", "exporting.finished", "exporting.locate", "exporting.model_card"),
        *("exporting.model_metadata", "exporting.personal_or_shared", "site_report"),
    },
    "report": set(),
    "simulate": {"federated.limits", "federated.run_record", "federated.simulator", "site_report"},
}
"""Beside the function of the same name: what a command needs to show its result."""


@pytest.mark.parametrize("name", SHOWN)
def test_a_command_parses_calls_and_shows(name: str) -> None:
    tree = ast.parse((COMMANDS / f"{name}.py").read_text(encoding="utf-8"))
    modules = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    used = {module for module in modules if module.startswith("monai_fedlora.") and not module.startswith(LIGHT)}
    assert used == {f"monai_fedlora.{module}" for module in SHOWN[name]}
