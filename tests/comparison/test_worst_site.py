"""The worst site has the tables' number, an interval that knows of the choice, and how sure it is which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.patient_draws import cases_tested, draws, estimate
from monai_fedlora.comparison.result_rows import key_of
from monai_fedlora.comparison.worst_site import worst_site
from monai_fedlora.tasks.classification import CLASSIFICATION

CLASSES = ("NOR", "ABN")
MEASURES = Measures.of(CLASSIFICATION, CLASSES)


def answers(
    shares: dict[str, float], *, patients: int = 20, runs: int = 3, photographs: int = 1, seed: int = 0
) -> list[CaseScore]:
    """``shares`` of right predictions by site."""
    rng = np.random.default_rng(seed)
    return [
        CaseScore(
            method="fedit",
            seed=run,
            site=site,
            view="personal",
            patient=f"{label}{n}",
            case=f"{label}{n}.{photo}",
            label=label,
            score=float(rng.random() < share),
        )
        for run in range(runs)
        for site, share in shares.items()
        for label in CLASSES
        for n in range(patients)
        for photo in range(photographs)
    ]


def test_it_is_the_mean_over_runs_of_each_runs_worst() -> None:
    scores = answers({"a": 0.6, "b": 0.7, "c": 0.9}, photographs=2)
    found = worst_site(cases_tested(scores)["fedit"], MEASURES)
    assert found is not None
    by_run = [
        min(key_of([s for s in scores if (s.seed, s.site) == (run, site)], MEASURES) or 0.0 for site in "abc")
        for run in range(3)
    ]
    assert found.found.value == pytest.approx(fmean(by_run))
    assert found.found.low is not None
    assert found.found.low < found.found.value
    assert found.shares["a"] > 0.6 > found.shares["b"] > found.shares["c"]


def test_a_site_with_cases_of_one_class_is_no_worst_site() -> None:
    scores = [s for s in answers({"a": 0.1, "b": 0.7, "c": 0.9}) if s.site != "a" or s.label == "NOR"]
    found = worst_site(cases_tested(scores)["fedit"], MEASURES)
    assert found is not None
    assert set(found.shares) == {"b", "c"}
    only = [s for s in scores if s.site != "c"]
    assert worst_site(cases_tested(only)["fedit"], MEASURES) is None


def test_sites_that_tie_share_the_draws_and_equal_answers_have_no_interval() -> None:
    found = worst_site(cases_tested(answers({"a": 1.0, "b": 1.0}))["fedit"], MEASURES)
    assert found is not None
    assert (found.found.value, found.found.low, found.shares) == (1.0, None, {"a": 1.0, "b": 1.0})


def test_rounding_is_no_interval() -> None:
    assert estimate(np.array([0.3, 0.1 + 0.2, 0.3])).low is None
    assert estimate(np.array([0.3, 0.31, 0.29])).low is not None


def test_a_run_that_lacks_cases_does_not_count_nor_does_a_case_without_a_score() -> None:
    scores = [s for s in answers({"a": 0.6, "b": 0.7}) if s.seed != 1 or s.site != "b"]
    assert cases_tested(scores)["fedit"].runs == [(0, 0), (2, 0)]
    tested = cases_tested(scores)["fedit"]
    lost = [s if s.case != "NOR3.0" or s.seed != 2 else _without(s) for s in scores]
    assert len(cases_tested(lost)["fedit"].cases) == len(tested.cases) - 2


def _without(score: CaseScore) -> CaseScore:
    from dataclasses import replace

    return replace(score, score=None)


def test_patients_are_drawn_with_all_their_photographs_and_within_site_and_class() -> None:
    tested = cases_tested(answers({"a": 0.6, "b": 0.7}, patients=5, photographs=3))["fedit"]
    drawn = draws(tested, by_class=True, number=50)
    weights: dict[tuple[str, str, str], list[Sequence[float]]] = {}
    for place, case in enumerate(tested.cases):
        weights.setdefault((case.site, case.label, case.patient), []).append(drawn.cases[:, place].tolist())
    assert all(len(columns) == 3 and columns.count(columns[0]) == 3 for columns in weights.values())
    for site in "ab":
        for label in CLASSES:
            cell = np.array([columns[0] for (s, c, _), columns in weights.items() if (s, c) == (site, label)])
            assert cell.sum(axis=0) == pytest.approx(np.full(51, 5.0))
    assert (drawn.cases[0] == 1).all() and (drawn.runs[0] == 1).all()


def test_the_spread_of_a_mean_is_that_of_its_closed_form() -> None:
    tested = cases_tested(answers({"a": 0.6}, patients=12, runs=1))["fedit"]
    drawn = draws(tested, by_class=False, number=20_000)
    means = drawn.cases @ tested.scores[:, 0] / drawn.cases.sum(axis=1)
    assert means[1:].std() == pytest.approx(tested.scores[:, 0].std(ddof=1) / np.sqrt(24), rel=0.03)
    assert estimate(means, bounds=(0.0, 0.61)).high == 0.61


@pytest.mark.slow
def test_the_interval_has_the_true_worst_site() -> None:
    """One of percentiles has it in less than 0.6 of them."""
    truth, covered = (0.7, 0.7, 0.7, 0.7), []
    for seed in range(50):
        scores = answers(dict(zip("abcd", truth, strict=True)), patients=15, runs=1, seed=seed)
        found = worst_site(cases_tested(scores)["fedit"], MEASURES)
        assert found is not None
        assert found.found.low is not None
        assert found.found.high is not None
        covered.append(found.found.low <= min(truth) <= found.found.high)
    assert fmean(covered) >= 0.87
