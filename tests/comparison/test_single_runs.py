"""Tests of two models are those of their papers, and keep to one run of independent patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.single_runs import delong, single_run_tests

CLASSES = ("NOR", "ABN")
RNG = np.random.default_rng(0)


def kernel(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def test_areas_are_compared_as_in_the_paper() -> None:
    truth = RNG.random(40) < 0.4
    models = [np.round(RNG.normal(truth * shift, 1), 1) for shift in (1.0, 0.3)]  # rounded, so that some tie
    x, y = ([m[truth == kind] for m in models] for kind in (True, False))
    positive, negative = len(x[0]), len(y[0])
    v10 = [[sum(kernel(a, b) for b in y[k]) / negative for a in x[k]] for k in range(2)]
    v01 = [[sum(kernel(a, b) for a in x[k]) / positive for b in y[k]] for k in range(2)]
    covariance = np.cov(v10) / positive + np.cov(v01) / negative
    contrast = np.array([1, -1])
    difference, p = delong(*models, truth)
    assert difference == pytest.approx(roc_auc_score(truth, models[0]) - roc_auc_score(truth, models[1]))
    assert p == pytest.approx(2 * stats.norm.sf(abs(difference) / np.sqrt(contrast @ covariance @ contrast)))


def test_equal_areas_are_found_different_in_a_twentieth() -> None:
    truth = np.arange(80) < 30
    found = []
    for _ in range(1000):
        patient = RNG.normal(truth * 1.0, 1)
        one, other = patient + RNG.normal(0, 0.7, (2, 80))
        found.append(delong(one, other, truth)[1])
    assert np.mean(np.array(found, dtype=float) < 0.05) <= 0.06


def test_models_without_any_difference_are_equal() -> None:
    truth = [True, True, False, False]
    assert delong([1, 2, 0, 1], [1, 2, 0, 1], truth) == (0, 1)
    assert delong([2, 2, 1, 1], [1, 1, 2, 2], truth) == (1, None)


def scored(method: str, right: str, **more: object) -> list[CaseScore]:
    """A case for each letter, r for right and w for wrong, of the classes in turn."""
    base = CaseScore(method=method, seed=0, site="north", view="personal", patient="", case="", label="", score=None)
    return [
        replace(
            base,
            patient=f"p{n}",
            case=f"p{n}",
            label=CLASSES[n % 2],
            score=float(letter == "r"),
            more={"probability_ABN": 0.5 + (0.3 + n / 100) * (1 if (letter == "r") == (n % 2 == 1) else -1)},
            **more,
        )
        for n, letter in enumerate(right)
    ]


def test_every_run_has_a_line_of_its_own() -> None:
    scores = [
        each
        for seed in (0, 1)
        for method, right in (("a", "rrrrrrrr"), ("b", "wwwwwwwr"))
        for each in scored(method, right, seed=seed)
    ]
    lines = list(single_run_tests(scores, ["a", "b"], CLASSES))
    assert [line["seed"] for line in lines] == [0, 1]
    (line, _) = lines
    assert (line["method"], line["reference"], line["cases"]) == ("b", "a", 8)
    assert (line["right_alone"], line["reference_right_alone"]) == (0, 7)
    assert line["p_mcnemar"] == pytest.approx(2 / 2**7)
    assert line["auroc_difference"] < 0
    (three, _) = single_run_tests(scores, ["a", "b"], ("NOR", "ABN", "RV"))
    assert three["auroc_difference"] is three["p_delong"] is None


def test_cases_that_are_not_independent_or_not_the_same_are_not_tested() -> None:
    one, other = scored("a", "rrwr"), scored("b", "rwwr")
    assert list(single_run_tests([*one, *other[1:]], ["a", "b"], CLASSES)) == []
    twice = [replace(each, patient="p0") if each.case == "p2" else each for each in [*one, *other]]
    assert list(single_run_tests(twice, ["a", "b"], CLASSES)) == []
