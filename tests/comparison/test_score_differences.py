"""Scores of test cases become a claim about these sites and one about others, from what two methods both have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.score_differences import FEWEST_SITES, ScoreTable
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.segmentation import SEGMENTATION

MEASURES = Measures.of(CLASSIFICATION, ("NOR", "ABN"))
MASKS = Measures.of(SEGMENTATION, ("LV", "MYO", "RV"))


def scored(
    method: str,
    score: Callable[[int, str, str, int], float | None],
    *,
    sites: Iterable[str] = ("north", "south"),
    patients: Iterable[tuple[str, int]] = (("NOR", 4), ("ABN", 8)),
    seeds: Iterable[int] = (0, 1),
) -> list[CaseScore]:
    """``score(seed, site, label, patient)`` of every patient."""
    return [
        CaseScore(
            method=method,
            seed=seed,
            site=site,
            view="personal",
            patient=f"{label}{patient}",
            case=f"{label}{patient}",
            label=label,
            score=score(seed, site, label, patient),
        )
        for seed in seeds
        for site in sites
        for label, n in patients
        for patient in range(n)
    ]


def right(*wrong: tuple[str, int]) -> Callable[[int, str, str, int], float]:
    """Right but for these patients."""
    return lambda seed, site, label, patient: float((label, patient) not in wrong)


def test_a_difference_is_the_mean_over_sites_classes_patients_and_runs() -> None:
    one = scored("one", right(("NOR", 0)))
    other = scored("other", lambda seed, site, label, patient: float(site == "north" or seed == 1 or label == "ABN"))
    found = ScoreTable([*one, *other], MEASURES).between("one", "other")
    assert found is not None
    # north: 7/8 - 1, twice; south: 7/8 - 1/2 and 7/8 - 1
    assert found.difference == pytest.approx(fmean([-1 / 8, -1 / 8, 3 / 8, -1 / 8]))
    assert (found.sites, found.patients, found.runs, found.left_out) == (2, 24, 2, 0)
    assert found.here.low is not None
    assert found.here.high is not None
    assert found.here.low < found.difference < found.here.high


def test_sites_count_by_their_cases_where_the_comparison_says_so() -> None:
    """South has three times as many patients."""
    few = scored("one", right(), sites=["north"]), scored("other", right(("NOR", 0)), sites=["north"])
    many = [
        scored(method, right(), sites=["south"], patients=[("NOR", 12), ("ABN", 24)]) for method in ("one", "other")
    ]
    scores = [score for each in (*few, *many) for score in each]
    found = {by_cases: ScoreTable(scores, replace(MEASURES, by_cases=by_cases)) for by_cases in (False, True)}
    differences = {by: table.between("one", "other") for by, table in found.items()}
    assert {by: each.difference for by, each in differences.items() if each} == {
        False: pytest.approx(1 / 8 / 2),
        True: pytest.approx(1 / 8 / 4),
    }


def test_a_site_with_patients_of_one_class_has_no_part_in_a_difference_of_means_over_classes() -> None:
    """It has none in the means either, which would otherwise be of other sites than their difference."""
    methods = {"one": right(("NOR", 0)), "other": right(("ABN", 1), ("ABN", 2))}
    both = [score for name, answer in methods.items() for score in scored(name, answer)]
    alone = [
        score
        for name, wrong in (("one", 0.0), ("other", 1.0))
        for score in scored(name, lambda *_, wrong=wrong: wrong, sites=["east"], patients=[("NOR", 4)])
    ]
    table = ScoreTable([*both, *alone], MEASURES)
    assert table.between("one", "other") == ScoreTable(both, MEASURES).between("one", "other")
    assert ScoreTable(alone, MEASURES).between("one", "other") is None
    masks = ScoreTable([*both, *alone], MASKS).between("one", "other")
    assert masks is not None
    assert masks.sites == 3


def test_one_run_tells_of_its_models_and_claims_nothing_of_methods() -> None:
    one = scored("one", lambda seed, site, label, patient: 0.9 - patient / 100, seeds=[0])
    other = scored("other", lambda seed, site, label, patient: 0.8 - patient / 50, seeds=[0])
    found = ScoreTable([*one, *other], MASKS).between("one", "other")
    assert found is not None
    differences = np.array([0.1 + patient / 100 for n in (4, 8) for patient in range(n)])
    margin = differences.std(ddof=1) / np.sqrt(24) * stats.t.ppf(0.975, 22)
    assert (found.here.low, found.here.high) == pytest.approx((found.difference - margin, found.difference + margin))
    assert found.here.detectable is not None
    assert (found.here.of_models, found.here.p, found.here.excludes_none, found.elsewhere) == (True, None, False, None)
    twice = ScoreTable([*one, *other, *(replace(each, seed=1) for each in (*one, *other))], MASKS)
    again = twice.between("one", "other")
    assert again is not None
    assert again.here.excludes_none


def test_a_method_alone_has_the_mean_of_its_sites_with_an_interval() -> None:
    scores = scored("one", right(("NOR", 0)), sites=["north"]) + scored("one", right(("ABN", 0), ("ABN", 1)))
    table = ScoreTable([each for each in scores if each.site == "north"][: 2 * 12], MEASURES)
    found = table.alone("one")
    assert found is not None
    assert found.value == pytest.approx(7 / 8)
    assert found.here.low is not None
    assert found.here.low < 7 / 8
    assert table.alone("other") is None


def test_without_classes_a_site_is_one_cell() -> None:
    scores = [
        *scored("one", lambda seed, site, label, patient: 0.9 - patient / 100, sites=["north"]),
        *scored("other", lambda seed, site, label, patient: 0.8 - patient / 50, sites=["north"]),
    ]
    found = ScoreTable(scores, MASKS).between("one", "other")
    expected = stats.ttest_1samp([0.1 + patient / 100 for patient in [*range(4), *range(8)]], 0)
    assert found is not None
    assert found.here.p == pytest.approx(expected.pvalue)
    assert found.elsewhere is None
    assert found.here.excludes_none


def test_cases_of_a_patient_are_one_observation() -> None:
    cases = scored("one", right(("NOR", 0))) + scored("other", right(("ABN", 1), ("NOR", 2)))
    once = ScoreTable(cases, MEASURES).between("one", "other")
    again = [replace(each, case=f"{each.case}-again") for each in cases]
    assert ScoreTable([*cases, *again], MEASURES).between("one", "other") == once


def test_only_what_both_methods_have_is_compared() -> None:
    one = scored("one", right(("NOR", 0)), sites=["north", "south", "east"], seeds=[0, 1, 2])
    other = scored("other", right(("ABN", 0)), seeds=[0, 1, 3])
    lost = [each for each in other if not (each.seed == 1 and each.patient == "ABN3")]  # as of a fold that failed
    found = ScoreTable([*one, *lost], MEASURES).between("one", "other")
    assert found is not None
    assert (found.sites, found.runs, found.patients) == (2, 1, 24)
    none = [replace(each, score=None) if each.patient == "ABN3" else each for each in other]
    found = ScoreTable([*one, *none], MEASURES).between("one", "other")
    assert found is not None
    assert (found.runs, found.patients, found.left_out) == (2, 22, 2)
    assert ScoreTable(one, MEASURES).between("one", "other") is None
    assert ScoreTable([*one, *scored("other", right(), seeds=[7])], MEASURES).between("one", "other") is None
    assert ScoreTable([*one, *scored("other", lambda *_: None)], MEASURES).between("one", "other") is None


def test_repeats_of_a_cross_validation_are_runs_and_folds_are_parts_of_them() -> None:
    def folded(method: str, score: Callable[[int, str, str, int], float | None]) -> list[CaseScore]:
        return [
            replace(each, repeat=repeat, fold=int(each.patient[-1]) % 2)
            for repeat in range(3)
            for each in scored(method, score, seeds=[0])
        ]

    found = ScoreTable([*folded("one", right()), *folded("other", right(("ABN", 0)))], MEASURES).between("one", "other")
    assert found is not None
    assert (found.runs, found.patients) == (3, 24)


def test_other_views_are_compared_apart() -> None:
    new = [replace(each, view="new", cases=4) for each in scored("one", right()) + scored("other", right(("NOR", 0)))]
    old = scored("one", right()) + scored("other", right())
    found = ScoreTable([*old, *new], MEASURES, view="new", cases=4).between("one", "other")
    assert found is not None
    assert found.difference == pytest.approx(1 / 8)


def test_few_hospitals_have_an_interval_and_no_p_value() -> None:
    rng = np.random.default_rng(0)
    sites = [f"site-{number}" for number in range(FEWEST_SITES)]
    easy = {(site, patient): rng.random() for site in sites for patient in range(8)}
    one = scored("one", lambda seed, site, label, patient: float(easy[site, patient] < 0.8), sites=sites)
    other = scored("other", lambda seed, site, label, patient: float(easy[site, patient] < 0.5), sites=sites)
    found = ScoreTable([*one, *other], MEASURES).between("one", "other")
    assert found is not None
    assert found.elsewhere is not None
    means = [fmean(s.score or 0 for s in part if s.site == site) for site in sites for part in (one, other)]
    assert len(means) == 2 * FEWEST_SITES
    assert found.elsewhere.p is not None
    few = [each for each in [*one, *other] if each.site != sites[0]]
    found = ScoreTable(few, MEASURES).between("one", "other")
    assert found is not None
    assert found.elsewhere is not None
    assert found.elsewhere.p is None
    assert found.elsewhere.low is not None


def test_p_values_are_corrected_as_holm_says() -> None:
    methods = {
        "base": right(),
        "near": right(("ABN", 0)),
        "far": right(*(("ABN", n) for n in range(4))),
        "same": right(),
    }
    scores = [each for method, score in methods.items() for each in scored(method, score)]
    found = {each.method: each.here for each in ScoreTable(scores, MEASURES).against("base", ["near", "far", "same"])}
    assert found["far"].p is not None
    assert found["near"].p is not None
    assert found["far"].p_holm == pytest.approx(3 * found["far"].p)
    assert found["near"].p_holm == pytest.approx(2 * found["near"].p)
    assert found["same"].p_holm == 1


def test_where_nothing_differs_among_patients_there_is_no_interval() -> None:
    scores = scored("one", lambda *_: 1.0) + scored("other", lambda *_: 0.0)
    found = ScoreTable(scores, MEASURES).between("one", "other")
    assert found is not None
    assert found.difference == 1
    assert (found.here.low, found.here.p, found.here.detectable, found.here.excludes_none) == (None, None, None, False)
