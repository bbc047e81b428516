"""Metrics of the shared model over the patients of all sites."""

from __future__ import annotations

from typing import Any

import pytest

from monai_fedlora.exporting.pooled import pooled_test
from tests.helpers import make_plan

STRUCTURES = ("LV", "RV")


def results(
    *views: dict[str, Any], task: str = "segmentation", classes: tuple[str, ...] = STRUCTURES
) -> tuple[Any, Any]:
    sites = tuple(f"site-{number}" for number in range(1, len(views) + 1))
    plan = make_plan(task=task, classes=classes, sites=sites)
    final = {site: {"test": {"shared": view, "personal": view}} for site, view in zip(sites, views, strict=True)}
    return {"status": "finished", "plan": plan.to_json(), "final": final}, plan


def test_a_structure_is_weighted_by_the_patients_that_have_it() -> None:
    many = {"n": 90, "dice": 0.9, "dice_LV": 0.9, "dice_RV": 0.5, "cases_LV": 90, "cases_RV": 10}
    few = {"n": 30, "dice": 0.7, "dice_LV": 0.7, "dice_RV": 0.8, "cases_LV": 30, "cases_RV": 30}
    pooled = pooled_test(*results(many, few))
    assert pooled is not None and pooled["n"] == 120
    assert pooled["dice"] == pooled["dice_LV"] == pytest.approx(0.85)
    assert pooled["dice_RV"] == pytest.approx((10 * 0.5 + 30 * 0.8) / 40)


def test_a_site_without_the_structure_counts_nothing_and_a_run_without_counts_is_weighted_by_all() -> None:
    one = {"n": 10, "dice": 0.9, "dice_LV": 0.9, "dice_RV": None, "cases_LV": 10, "cases_RV": 0}
    other = {"n": 30, "dice": 0.7, "dice_LV": 0.7, "dice_RV": 0.8}
    pooled = pooled_test(*results(one, other))
    assert pooled is not None and pooled["dice_RV"] == pytest.approx(0.8) and pooled["dice_LV"] == pytest.approx(0.75)


def test_an_error_of_a_value_is_weighted_by_the_patients_of_whom_it_is_known() -> None:
    whole, key = "scaled_error", "mean_absolute_error"
    many = {"n": 90, whole: 5.0, f"{key}_EF": 4.0, "cases_EF": 10}
    few = {"n": 30, whole: 7.0, f"{key}_EF": 8.0, "cases_EF": 30}
    pooled = pooled_test(*results(many, few, task="regression", classes=("EF", "volume")))
    assert pooled is not None and pooled[whole] == pytest.approx(5.5)
    assert pooled[f"{key}_EF"] == pytest.approx((10 * 4 + 30 * 8) / 40) and pooled[f"{key}_volume"] is None
