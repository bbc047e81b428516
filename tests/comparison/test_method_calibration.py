"""Calibration of methods: the metrics' own numbers, from patients, with what chance alone would give."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.method_calibration import Calibration, calibration
from monai_fedlora.comparison.patient_draws import cases_tested
from monai_fedlora.engines.metrics import classification_metrics

CLASSES = ("NOR", "DCM", "HCM")


def predictions(*, honest: bool, patients: int = 60, runs: int = 2, seed: int = 0) -> list[CaseScore]:
    """Two sites; an honest model's classes occur as often as it says."""
    rng = np.random.default_rng(seed)
    scores = []
    for run in range(runs):
        for site in ("a", "b"):
            said = np.random.default_rng([seed, site == "b"]).dirichlet((1, 1, 1), size=patients)
            truth = [int(np.random.default_rng([seed, n, site == "b"]).choice(3, p=p)) for n, p in enumerate(said)]
            for n, (p, label) in enumerate(zip(said, truth, strict=True)):
                p = p if honest else np.eye(3)[p.argmax()] * 0.97 + 0.01
                p = p + rng.normal(0, 1e-9, 3)
                p = p / p.sum()
                scores.append(
                    CaseScore(
                        method="fedit",
                        seed=run,
                        site=site,
                        view="personal",
                        patient=f"p{n:03d}",
                        case=f"p{n:03d}",
                        label=CLASSES[label],
                        score=float(p.argmax() == label),
                        more={f"probability_{name}": value for name, value in zip(CLASSES, p, strict=True)},
                    )
                )
    return scores


def found(scores: list[CaseScore]) -> Calibration:
    result = calibration(cases_tested(scores)["fedit"], CLASSES)
    assert result is not None
    return result


def test_numbers_are_means_over_sites_and_runs_of_the_metrics_own() -> None:
    scores = predictions(honest=False)
    errors, briers = [], []
    for run in range(2):
        for site in "ab":
            own = [each for each in scores if (each.seed, each.site) == (run, site)]
            said = np.array([[each.more[f"probability_{name}"] for name in CLASSES] for each in own], dtype=float)
            truth = [CLASSES.index(each.label) for each in own]
            errors.append(classification_metrics(said, truth)["ece"])
            briers.append(((said - np.eye(3)[truth]) ** 2).sum(axis=1).mean())
    result = found(scores)
    assert result.error.value == pytest.approx(fmean(errors))
    assert result.brier.value == pytest.approx(fmean(briers))
    assert result.brier.low is not None
    assert result.brier.high is not None
    assert result.brier.low < result.brier.value < result.brier.high


@pytest.mark.slow
def test_an_honest_model_stays_below_what_chance_gives_and_an_overconfident_one_does_not() -> None:
    below = [found(predictions(honest=True, runs=1, seed=seed)) for seed in range(6)]
    assert sum(each.error.value <= each.by_chance for each in below) >= 5
    loud = found(predictions(honest=False))
    assert loud.error.value > 2 * loud.by_chance
    assert loud.error.low is not None
    assert loud.error.low > loud.by_chance


def test_runs_that_say_the_same_of_the_same_patients_are_no_more_than_one() -> None:
    one = predictions(honest=True, runs=1, patients=20)
    again = [replace(each, seed=1) for each in one]
    assert found([*one, *again]).by_chance == pytest.approx(found(one).by_chance)


def test_sites_count_by_their_cases_where_the_comparison_says_so() -> None:
    scores = [each for each in predictions(honest=True, runs=1) if each.site == "a" or each.patient < "p015"]
    tested = cases_tested(scores)["fedit"]
    by_site = [found([each for each in scores if each.site == site]) for site in "ab"]
    weighted = calibration(tested, CLASSES, by_cases=True)
    assert weighted is not None
    for name in ("brier", "error"):
        a, b = (getattr(each, name).value for each in by_site)
        assert getattr(found(scores), name).value == pytest.approx((a + b) / 2)
        assert getattr(weighted, name).value == pytest.approx((60 * a + 15 * b) / 75)


def test_without_probabilities_there_is_no_calibration() -> None:
    scores = predictions(honest=True)
    assert calibration(cases_tested(scores)["fedit"], (*CLASSES, "MINF")) is None
