"""What ``import monai_fedlora as fl`` offers."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import monai_fedlora as fl


def test_every_public_name_is_documented_and_comes_from_its_module() -> None:
    assert sorted(fl.__all__) == sorted(fl._MODULES)
    for name in fl.__all__:
        value = getattr(fl, name)
        assert value is getattr(import_module(f"monai_fedlora.{fl._MODULES[name]}"), name)
        assert value.__doc__


def test_type_checkers_see_the_names_that_are_imported_at_their_first_use() -> None:
    tree = ast.parse(Path(str(fl.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == {name: f"monai_fedlora.{module}" for name, module in fl._MODULES.items()}


def test_public_names_are_listed_before_they_are_used_and_no_other_can_be() -> None:
    program = "import monai_fedlora as fl; print(*[name in dir(fl) for name in fl.__all__], hasattr(fl, 'metod'))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["True"] * len(fl.__all__) + ["False"]


def test_no_module_of_the_package_hides_a_public_name() -> None:
    """Importing a module puts it under its name in the package, in the place of a function of that name."""
    folder = Path(str(fl.__file__)).parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert modules.isdisjoint(fl.__all__)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="metod"):
        fl.metod  # noqa: B018
