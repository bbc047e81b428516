"""Whatever lies in a results.json gives a record or one error, and no number is invented."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import FedLoraError
from monai_fedlora.reporting.found_run import FoundRun
from monai_fedlora.reporting.page import page
from monai_fedlora.reporting.record import parse_record
from monai_fedlora.site_report import PERSONAL, SHARED
from tests.rendering.reading import without_figures
from tests.reporting.conftest import value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["north", "south"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


PLACES = [place for place in places(value()) if place]


@given(st.sampled_from(PLACES), JSON, st.booleans())
def test_a_record_with_anything_anywhere_is_a_page_or_an_error(place: tuple[Any, ...], found: Any, drop: bool) -> None:
    changed = value()
    target: Any = changed
    for key in place[:-1]:
        target = target[key]
    if drop:
        del target[place[-1]]
    else:
        target[place[-1]] = found
    try:
        record = parse_record(changed, "results.json")
    except FedLoraError as error:
        assert "results.json" in str(error)
        assert place[0] in ("plan", "format")
    else:
        with without_figures():
            assert page(FoundRun(record=record)).endswith("</html>\n")


@given(JSON)
def test_any_other_json_is_an_error_that_names_the_file(found: Any) -> None:
    with pytest.raises(FedLoraError, match=r"results\.json is no record of a run"):
        parse_record(found, "results.json")


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, "0.5", True, [0.5]])
def test_what_is_no_finite_number_is_unknown(nothing: Any) -> None:
    changed = value()
    changed["final"]["north"]["test"][PERSONAL]["auroc"] = nothing
    changed["rounds"][0]["sites"]["north"]["train_loss"] = nothing
    record = parse_record(changed, "results.json")
    assert "auroc" not in record.final["north"].test[PERSONAL].values
    assert record.rounds[0].answers["north"].train_loss is None
    assert record.final["north"].test[SHARED].values["balanced_accuracy"] == 0.5


def test_another_format_is_refused_with_the_version_that_wrote_it() -> None:
    with pytest.raises(FedLoraError, match=r"format 3, this version reads 1 and 2; .* \(9\.9\)"):
        parse_record({**value(), "format": 3, "version": "9.9"}, "results.json")


def test_a_matrix_with_holes_is_no_matrix() -> None:
    for matrix in ([[1, 2], [3]], [[1, 2]], [[1, None], [3, 4]], [[1, -2], [3, 4]], "no"):
        changed = value()
        changed["final"]["north"]["test"][PERSONAL]["confusion_matrix"] = matrix
        assert parse_record(changed, "results.json").final["north"].test[PERSONAL].confusion == ()
