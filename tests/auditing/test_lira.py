"""The likelihood ratio of shadow models: its formula, its halves, and what it finds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from monai_fedlora.auditing.lira import ENOUGH_RUNS, halves, lira_scores, scaled_confidence
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.attacks import roc_area


def test_confidence_is_the_logit_of_the_labels_probability() -> None:
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 3
    right = logits.double().softmax(dim=1)[torch.arange(20), labels]
    torch.testing.assert_close(scaled_confidence(logits, labels), (right / (1 - right)).log())
    assert torch.isfinite(scaled_confidence(torch.tensor([[500.0, -500.0]]), torch.tensor([0]))).all()


@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=60), run=st.integers(0, 9), seed=st.integers(0, 5))
def test_two_runs_train_on_opposite_halves_of_every_class(labels: list[int], run: int, seed: int) -> None:
    values = torch.tensor(labels)
    inside = halves(values, run=run, seed=seed)
    assert torch.equal(~inside, halves(values, run=run + 1 - 2 * (run % 2), seed=seed))
    assert torch.equal(inside, halves(values, run=run, seed=seed))
    assert abs(int(inside.sum()) - int((~inside).sum())) <= 1
    for label in values.unique():
        assert abs(int(inside[values == label].sum()) - int((~inside[values == label]).sum())) <= 1


def shadow_runs(runs: int, *, patients: int = 80, gap: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The target, which has the first half as members, shadow runs, and their halves."""
    generator = torch.Generator().manual_seed(3)
    hardness = 3 * torch.randn(patients, generator=generator)
    labels = torch.zeros(patients)
    inside = torch.stack([halves(labels, run=run, seed=1) for run in range(runs)])
    shadows = hardness + gap * inside + torch.randn(runs, patients, generator=generator)
    target = hardness + gap * (torch.arange(patients) < patients // 2) + torch.randn(patients, generator=generator)
    return target.double(), shadows.double(), inside


@pytest.mark.parametrize("runs", [8, ENOUGH_RUNS])
def test_the_score_is_the_ratio_of_two_normal_densities(runs: int) -> None:
    target, shadows, inside = shadow_runs(runs)
    found = lira_scores(target, shadows, inside)
    rests: dict[bool, list[float]] = {True: [], False: []}
    for side in (True, False):
        for place in range(len(target)):
            chosen = shadows[inside[:, place] == side, place]
            rests[side] += ((chosen - chosen.mean()) ** 2).tolist()
    for place in range(3):
        expected = 0.0
        for side in (True, False):
            chosen = shadows[inside[:, place] == side, place]
            spread = sum(rests[side]) / (len(target) * (runs // 2 - 1))
            spread = float(chosen.var()) if runs >= ENOUGH_RUNS else spread
            expected += (1 if side else -1) * norm(float(chosen.mean()), spread**0.5).logpdf(float(target[place]))
        assert float(found[place]) == pytest.approx(expected, rel=1e-6)


def test_it_finds_members_that_the_confidence_alone_does_not() -> None:
    target, shadows, inside = shadow_runs(16, gap=2.0)
    found = lira_scores(target, shadows, inside)
    assert roc_area(found[:40], found[40:]) > 0.8 > roc_area(target[:40], target[40:])
    nothing, shadows, inside = shadow_runs(16, gap=0.0)
    found = lira_scores(nothing, shadows, inside)
    assert 0.35 < roc_area(found[:40], found[40:]) < 0.65


def test_two_runs_are_enough_and_one_is_not() -> None:
    target, shadows, inside = shadow_runs(2)
    assert torch.isfinite(lira_scores(target, shadows, inside)).all()
    with pytest.raises(ExportError, match="too few"):
        lira_scores(target, shadows[:1], inside[:1])
