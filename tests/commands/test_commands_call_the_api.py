"""Every command parses, calls one function, and shows what came back."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import monai_fedlora

COMMANDS = Path(str(monai_fedlora.__file__)).parent / "commands"
EVERYWHERE = ("monai_fedlora.api.", "monai_fedlora.commands.", "monai_fedlora.errors.")
"""What all commands may import: Python's own functions, each other's helpers, and the errors."""
OF_OPERATORS = {
    "approve": {"federated.consent"},
    "cache": {"engines.store"},
    "feedback": {"clinic.opinions"},
    "forget": {"federated.kept_runs"},
    "methods": {"methods.overview", "federated.federation_settings", "federated.server_optimizer"},
    "policy": {"federated.policy_change"},
    "privacy": {"federated.approval", "privacy.forecast"},
    "serve": {"serve.served_bundle"},
}
"""Commands of those who look after a site, with the modules that each is the front of."""
OUTSIDE = {*sys.stdlib_module_names, "rich"}


def imported(source: str) -> set[str]:
    """Dotted names of everything that a file imports, at any depth, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports in this package are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def beside_the_api(source: str) -> set[str]:
    """Modules that are neither the API's nor a command's own, without the package's name."""
    names = {name for name in imported(source) if not name.startswith(EVERYWHERE)}
    return {
        name.removeprefix("monai_fedlora.").rpartition(".")[0] if name.startswith("monai_fedlora.") else name
        for name in names
        if name.partition(".")[0] not in OUTSIDE
    }


@pytest.mark.parametrize("path", sorted(COMMANDS.glob("*.py")), ids=lambda path: path.stem)
def test_a_command_parses_calls_and_shows(path: Path) -> None:
    assert beside_the_api(path.read_text(encoding="utf-8")) == OF_OPERATORS.get(path.stem, set())


def test_every_front_is_a_commands() -> None:
    assert OF_OPERATORS.keys() <= {path.stem for path in COMMANDS.glob("*.py")}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from monai_fedlora.api.job_simulation import simulate\nimport argparse, rich.live", set()),
        ("def run():\n    from monai_fedlora.federated.jobs import write_job", {"federated.jobs"}),
        ("from monai_fedlora import federated", {"federated"}),
        ("import monai_fedlora.federated.jobs", {"federated"}),
        ("import torch", {"torch"}),
    ],
)
def test_what_is_imported_elsewhere_is_seen(source: str, found: set[str]) -> None:
    seen = beside_the_api(source)
    assert len(seen) == len(found) and all(name.startswith(one) or one for name, one in zip(seen, found, strict=True))
