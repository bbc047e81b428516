"""Equal methods are found different in 5 % of comparisons and not more; a method that is better by 0.10 is found."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from monai_fedlora.comparison.paired_difference import Cell, Difference, difference
from tests.comparison import pretended_comparisons as pretended

DRAWS = 1000
HIGHEST = 0.06


def found(result: Difference) -> float:
    """Share of comparisons with p below 0.05."""
    return float(np.mean(result.p < 0.05))


def percentile(name: str, *, runs: int, luck: float) -> float:
    """Share of comparisons whose percentile interval of drawn patients excludes 0, as everyone does it."""
    rng, total = np.random.default_rng(1), 0.0
    for cell in pretended.compared(getattr(pretended, name), runs=runs, draws=200, seed=0, luck=luck):
        scores = cell.differences.mean(axis=1)
        n = len(scores)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=500)
        total = total + cell.weight * (counts.astype(np.float32) / n) @ scores
    low, high = np.quantile(total, [0.025, 0.975], axis=0)
    return float(np.mean((low > 0) | (high < 0)))


@pytest.mark.parametrize("name", ["HEARTS", "SPLIT", "SINGLE", pytest.param("DERMATOSCOPY", marks=pytest.mark.slow)])
@pytest.mark.parametrize("luck", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_the_same_method_twice_is_seldom_found_different(name: str, runs: int, luck: float) -> None:
    cells = pretended.compared(getattr(pretended, name), runs=runs, draws=DRAWS, seed=0, luck=luck)
    assert found(difference(cells)) <= HIGHEST


@pytest.mark.parametrize("name", ["HEARTS", "SPLIT", "SINGLE", pytest.param("DERMATOSCOPY", marks=pytest.mark.slow)])
def test_one_run_is_enough_where_runs_do_not_differ_and_not_elsewhere(name: str) -> None:
    same = pretended.compared(getattr(pretended, name), runs=1, draws=DRAWS, seed=0, luck=0)
    assert found(difference(same)) <= HIGHEST
    lucky = pretended.compared(getattr(pretended, name), runs=1, draws=DRAWS, seed=0, luck=0.8)
    assert found(difference(lucky)) > HIGHEST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "luck", "least"), [("SINGLE", 0, 0.2), ("SPLIT", 0, 0.08), ("DERMATOSCOPY", 0.5, 0.3)]
)
def test_the_plain_bootstrap_of_patients_finds_too_much(name: str, luck: float, least: float) -> None:
    assert percentile(name, runs=3, luck=luck) > least


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "least", "most"), [(3, 0.6, 0.8), (4, 0.8, 1.0)])
def test_four_runs_find_a_difference_of_a_tenth_among_four_dermatoscopy_centres(
    runs: int, least: float, most: float
) -> None:
    """All 8,012 photographs tested in every run, such as five folds with four seeds; three runs are too few."""
    result = difference(pretended.compared(pretended.DERMATOSCOPY, runs=runs, draws=DRAWS, seed=0, better=0.1))
    assert np.mean(result.value) == pytest.approx(0.1, abs=0.005)
    assert least <= found(result) <= most


@pytest.mark.parametrize("runs", [1, 5])
def test_a_detectable_difference_is_found_four_times_in_five(runs: int) -> None:
    drawn = functools.partial(pretended.compared, pretended.HEARTS, runs=runs, luck=0, seed=0)
    least = float(np.median(difference(drawn(draws=DRAWS)).detectable))
    assert 0.7 < found(difference(drawn(draws=DRAWS, better=least))) < 0.95


@pytest.mark.parametrize("luck", [0.02, 0.2])
def test_methods_that_share_the_luck_of_a_seed_are_told_apart_by_their_runs(luck: float) -> None:
    """The same luck moves both, and far more than what they differ by."""
    rng, runs = np.random.default_rng(0), 5
    patients, shared = rng.normal(0.7, 0.2, (40, 1, DRAWS)), rng.normal(0, luck, (1, runs, DRAWS))

    def compared(better: float) -> float:
        one, other = (patients + shared + rng.normal(0, 0.005, (40, runs, DRAWS)) for _ in range(2))
        return found(difference([Cell(weight=1, scores=one + better, reference=other)]))

    assert compared(0) <= HIGHEST
    assert compared(0.01) >= 0.8


@pytest.mark.parametrize("sites", [6, 12])
@pytest.mark.parametrize("luck", [0.0, 0.02])
def test_hospitals_drawn_at_random_seldom_show_a_difference_that_is_none(sites: int, luck: float) -> None:
    rng, runs = np.random.default_rng(0), 3
    scores = rng.normal(0, 0.05, (sites, 1, DRAWS)) + rng.normal(0, luck, (1, runs, DRAWS))
    scores = scores + rng.normal(0, 0.02, (sites, runs, DRAWS))
    assert found(difference([Cell(weight=1, scores=scores)])) <= HIGHEST
    counts = rng.multinomial(sites, np.full(sites, 1 / sites), size=1000)
    low, high = np.quantile(counts / sites @ scores.mean(axis=1), [0.025, 0.975], axis=0)
    assert np.mean((low > 0) | (high < 0)) > HIGHEST  # what hospitals' percentiles would find


def test_hospitals_differ_more_than_their_patients_tell() -> None:
    rng = np.random.default_rng(0)
    sites = rng.normal(0, 0.05, (6, DRAWS))
    patients = sites[:, None] + rng.normal(0, 0.3, (6, 100, DRAWS))
    cells = [Cell(weight=1 / 6, scores=each[:, None]) for each in patients]
    assert found(difference(cells)) > 0.2
    assert found(difference([Cell(weight=1, scores=patients.mean(axis=1)[:, None])])) <= HIGHEST
