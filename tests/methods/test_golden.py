"""Every method still gives what it gave when ``golden.json`` was recorded."""

from __future__ import annotations

import pytest

from monai_fedlora.methods import method_names
from tests.methods.federation import FAMILIES
from tests.methods.golden import TOLERANCE, recorded, result


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", method_names())
def test_a_small_federation_gives_the_recorded_result(name: str, family: str) -> None:
    """Where a change is meant, record anew with ``python -m tests.methods.golden`` and say in the commit why."""
    assert result(name, family) == pytest.approx(recorded()[family][name], abs=TOLERANCE, rel=0)


def test_the_records_tell_methods_apart() -> None:
    """A method that did nothing of its own would give another's result."""
    for family, results in recorded().items():
        losses = {round(values["loss"] / TOLERANCE) for values in results.values()}
        assert len(losses) == len(results), family
        assert set(results) == set(method_names())
