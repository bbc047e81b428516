"""Every method still gives what it gave when ``golden.json`` was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.methods.federation import NETWORKS, PAIRS
from tests.methods.golden import TOLERANCE, recorded, result


def in_turn() -> Iterator[Any]:
    """Every method on every family; in the fast tests on one, which take turns."""
    for row, name in enumerate(dict.fromkeys(name for name, _ in PAIRS)):
        found = [family for own, family in PAIRS if own == name]
        for number, family in enumerate(found):
            yield pytest.param(name, family, marks=() if number == row % len(found) else pytest.mark.slow)


@pytest.mark.parametrize(("name", "family"), in_turn())
def test_a_small_federation_gives_the_recorded_result(name: str, family: str) -> None:
    """Where a change is meant, record anew with ``python -m tests.methods.golden`` and say in the commit why."""
    assert result(name, family) == pytest.approx(recorded()[family][name], abs=TOLERANCE, rel=0)


def test_the_records_tell_methods_apart() -> None:
    """A method that did nothing of its own would give another's result."""
    assert recorded().keys() == NETWORKS.keys()
    for family, results in recorded().items():
        losses = {round(values["loss"] / TOLERANCE) for values in results.values()}
        assert len(losses) == len(results), family
        assert set(results) == {name for name, own in PAIRS if own == family}
