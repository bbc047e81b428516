"""Masks are compared by Dice on the files' grid too, and every value by its own error."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.patient_measures import patient_measures
from monai_fedlora.comparison.score_differences import ScoreTable
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.regression import REGRESSION
from monai_fedlora.tasks.segmentation import SEGMENTATION
from tests.comparison.test_score_differences import scored

MASKS = Measures.of(SEGMENTATION, ("LV",))
VALUES = Measures.of(REGRESSION, ("lv_ef", "lv_edv"))


def native(method: str, level: float, seeds: tuple[int, ...] = (0, 1)) -> list[CaseScore]:
    """On the network's grid all methods are equal; on that of the files they are not."""
    scores = scored(method, lambda *_: 0.8, seeds=seeds)
    return [
        replace(each, label="", more={"native_dice": level + int(each.patient[3:]) / 100 + each.seed / 1000})
        for each in scores
    ]


def test_dice_on_the_files_has_intervals_differences_and_a_best_method_of_its_own() -> None:
    scores = [*native("fedit", 0.7), *native("dual_lora", 0.75), *native("local", 0.6)]
    (found,) = patient_measures(scores, ["fedit", "dual_lora", "local"], MASKS)
    expected = ScoreTable((replace(each, score=each.more["native_dice"]) for each in scores), MASKS)
    assert found.word == "Dice on the files' grid"
    assert [mean.method for mean in found.means] == ["fedit", "dual_lora", "local"]
    assert found.means[1].value - found.means[0].value == pytest.approx(0.05)
    assert found.differences == expected.against("fedit", ["dual_lora", "local"])
    assert found.best == "dual_lora"
    assert found.detectable is not None
    once = [each for each in scores if each.seed == 0]
    (single,) = patient_measures(once, ["fedit", "dual_lora"], MASKS)
    assert single.best is None
    assert single.means[0].here.of_models


def test_every_value_is_compared_by_its_absolute_error_in_its_unit() -> None:
    scores = [
        replace(each, label="", more={"lv_ef": 50.0 + off, "lv_ef_truth": 55.0, "lv_edv": 100.0, "lv_edv_truth": None})
        for method, off in (("near", 4.0), ("far", -5.0))
        for each in scored(method, lambda *_: 1.0)
    ]
    (error,) = patient_measures(scores, ["near", "far"], VALUES)  # the volume is of nobody known
    assert error.word == "error of lv_ef, %"
    assert [mean.value for mean in error.means] == [1.0, 10.0]
    assert [each.difference for each in error.differences] == [9.0]


def test_classes_have_no_further_measures() -> None:
    assert Measures.of(CLASSIFICATION, ("NOR", "ABN")).by_patient == {}
