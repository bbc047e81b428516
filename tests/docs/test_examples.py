"""The examples in the docstrings of the public functions print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

import monai_fedlora as fl

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(fl._MODULES.values())))
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(import_module(f"monai_fedlora.{name}"), optionflags=OPTIONS)
    assert result.failed == 0


@pytest.mark.parametrize("name", [name for name in fl.__all__ if not isinstance(getattr(fl, name), type)])
def test_every_public_function_has_an_example(name: str) -> None:
    assert doctest.DocTestFinder().find(getattr(fl, name), name)[0].examples
