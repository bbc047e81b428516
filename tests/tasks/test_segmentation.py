"""Segmentation: what a mask permits, the loss, and the Dice coefficients of an evaluation."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from monai_fedlora.errors import ConfigError, DataError, PrivacyError
from monai_fedlora.measures.overlap import compare_masks
from monai_fedlora.site_report import Report, round_report
from monai_fedlora.tasks.segmentation import (
    SEGMENTATION,
    DiceWriter,
    MarginalDiceCrossEntropy,
    SegmentationMetrics,
    allowed_classes,
    case_scores,
    one_hot,
    outlined,
    segmentation_metrics,
)

NAMES = ("LV", "MYO")


def batch(mask: Tensor, labelled: list[list[bool]]) -> dict[str, Tensor]:
    return {"mask": mask.to(torch.uint8), "labelled": torch.tensor(labelled)}


def random_masks(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))


def target(mask: Tensor, labelled: tuple[bool, ...] = (True, True, True)) -> Tensor:
    found = allowed_classes(batch(mask, [list(labelled)] * len(mask)))
    assert found is not None
    return found


def test_a_structure_that_is_not_outlined_may_hide_in_the_background() -> None:
    mask = torch.tensor([[[0, 1, 2]], [[0, 1, 2]]])
    packed = allowed_classes(batch(mask, [[True, True, True], [True, True, False]]))
    assert packed is not None and packed.dtype is torch.uint8
    assert packed.tolist() == [[[0b001, 0b010, 0b100]], [[0b101, 0b010, 0b101]]]
    assert outlined(one_hot(packed, 3)).tolist() == [[True, True], [True, False]]
    assert allowed_classes({"image": mask}) is None


def test_cross_entropy_is_that_of_the_merged_classes() -> None:
    """Against two classes whose probability is added by hand."""
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, 5, 4)
    mask = random_masks(2, 2, 5, 4)
    mask[mask == 1] = 0
    probabilities = logits.softmax(dim=2)
    merged = torch.stack([probabilities[:, :, 0] + probabilities[:, :, 1], probabilities[:, :, 2]], dim=2)
    expected = -merged.log().gather(2, (mask == 2).long()[:, :, None]).flatten(1).mean(dim=1)
    truth = (mask == 2).float()
    score = 2 * (merged[:, :, 1] * truth).flatten(2).sum(2) / (merged[:, :, 1] + truth).flatten(2).sum(2)
    found = MarginalDiceCrossEntropy()(logits, target(mask, (True, False, True)))
    torch.testing.assert_close(found, expected + (1 - score).mean(dim=1), atol=1e-4, rtol=1e-4)


def test_with_every_structure_outlined_it_is_the_usual_cross_entropy() -> None:
    torch.manual_seed(1)
    logits, mask = torch.randn(2, 3, 6, 6), random_masks(2, 1, 6, 6)
    dice = torch.nn.functional.cross_entropy(logits, mask[:, 0], reduction="none").flatten(1).mean(dim=1)
    found = MarginalDiceCrossEntropy()(logits, target(mask))
    truth = torch.nn.functional.one_hot(mask[:, 0], 3).movedim(-1, 1)[:, 1:].float()
    p = logits.softmax(dim=1)[:, 1:]
    score = 2 * (p * truth).flatten(2).sum(2) / (p + truth).flatten(2).sum(2)
    torch.testing.assert_close(found, dice + (1 - score).mean(dim=1), atol=1e-4, rtol=1e-4)


def test_an_empty_structure_is_left_to_the_cross_entropy() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    empty = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    expected = torch.nn.functional.cross_entropy(logits, empty[:, 0])
    torch.testing.assert_close(MarginalDiceCrossEntropy()(logits, target(empty)), expected[None])


def test_what_is_not_outlined_is_pulled_nowhere() -> None:
    """Moving probability between the background and such a structure leaves the loss as it is."""
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    mask = random_masks(1, 1, 4, 4) * 0
    mask[..., 0] = 2
    MarginalDiceCrossEntropy()(logits, target(mask, (True, False, True))).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[:, 0], logits.grad[:, 1])


def outputs(found: Tensor, truth: Tensor, labelled: tuple[bool, ...] = (True, True, True)) -> list[dict[str, Tensor]]:
    logits = torch.nn.functional.one_hot(found, 3).movedim(-1, 2).float()
    return [{"pred": a, "label": b} for a, b in zip(logits, target(truth, labelled), strict=True)]


@pytest.mark.parametrize("labelled", [(True, True, True), (True, False, True)])
def test_dice_is_that_of_the_measures_of_masks(labelled: tuple[bool, ...]) -> None:
    found, truth = random_masks(2, 2, 4, 4, 3, seed=3), random_masks(2, 2, 4, 4, 3, seed=4)
    found[1, 0], truth[1, 0] = 0, 0
    truth[0, 1][truth[0, 1] == 2] = 0
    scores = case_scores(outputs(found, truth, labelled))
    for case, (ours, theirs) in enumerate(zip(found, truth, strict=True)):
        overlaps = compare_masks(
            ours, theirs, structures=NAMES, phases=("ED", "ES"), spacing=(1, 1, 1), labelled=labelled
        )
        expected = {(o.phase, o.structure): o.dice for o in overlaps}
        for frame, phase in enumerate(("ED", "ES")):
            for number, name in enumerate(NAMES):
                value = scores[case, frame, number].item()
                assert expected.get((phase, name)) == (None if math.isnan(value) else pytest.approx(value))


def test_the_mean_is_over_cases_and_has_an_interval() -> None:
    nan = math.nan
    scores = torch.tensor([[[1.0, nan], [0.5, nan]], [[0.0, 1.0], [nan, nan]]])
    found = segmentation_metrics(scores, NAMES)
    assert found["dice"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["dice_low"] <= found["dice"] <= found["dice_high"]
    assert (found["dice_LV"], found["dice_LV_ED"], found["dice_MYO_ES"]) == (pytest.approx(0.375), 0.5, None)
    assert (found["cases_LV"], found["cases_MYO"], found["n"]) == (2, 1, 2)
    assert segmentation_metrics(torch.full((1, 1, 2), nan), NAMES)["dice"] is None


def test_a_report_may_say_these_numbers_and_no_others() -> None:
    metrics = segmentation_metrics(torch.rand(5, 2, 2, generator=torch.Generator().manual_seed(0)), NAMES)
    report = round_report({"validation": {"personal": metrics}})
    form = SEGMENTATION.form(NAMES)
    parsed = Report.parse(report, form=form)
    assert parsed.validation is not None and parsed.validation["personal"]["n"] == 5
    for name, value in (("dice", 1.5), ("dice", 0.123456), ("dice_RV", 0.5), ("balanced_accuracy", 0.5)):
        with pytest.raises(PrivacyError):
            Report.parse({"validation": {"personal": {name: value}}}, form=form)


def test_the_key_metric_is_one_of_the_structures_or_their_mean() -> None:
    assert SegmentationMetrics(names=NAMES, key="dice_MYO").better(0.9, 0.8)
    with pytest.raises(ConfigError, match="dice_RV"):
        SegmentationMetrics(names=NAMES, key="dice_RV")


def test_a_csv_has_a_line_for_each_structure_and_frame(tmp_path) -> None:
    writer = DiceWriter(output_dir=tmp_path, names=NAMES, filename="evaluation.csv")
    mask = random_masks(1, 2, 4, 4, 3)
    mask[:, 1] = 0
    state = SimpleNamespace(batch=[{"subject": "p1"}], output=outputs(mask, mask))
    writer._reset(None)  # type: ignore[arg-type]
    writer._collect(SimpleNamespace(state=state))
    writer._write(None)  # type: ignore[arg-type]
    rows = list(csv.DictReader((tmp_path / "evaluation.csv").read_text().splitlines()))
    assert [(row["structure"], row["frame"], row["dice"]) for row in rows] == [
        ("LV", "ED", "1.000000"),
        ("MYO", "ED", "1.000000"),
        ("LV", "ES", ""),
        ("MYO", "ES", ""),
    ]


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (torch.zeros(3, 4), "grid"),
        (torch.full((4, 4), 0.5), "whole numbers"),
        (torch.full((4, 4), -1), "whole numbers"),
        (torch.full((4, 4), 3), "value 3"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_with_the_case(mask: Tensor, problem: str) -> None:
    kind = SEGMENTATION.collected
    with pytest.raises(DataError, match=rf"north: training case 0.*{problem}"):
        entries = kind.read({"mask": mask}, torch.zeros(1, 4, 4), "north: training case 0")
        kind.complete(entries, NAMES, "north: training case 0")


def test_settings_of_classification_are_refused() -> None:
    for settings in (
        {"class_weights": "balanced", "label_smoothing": 0.0},
        {"class_weights": None, "label_smoothing": 0.1},
    ):
        with pytest.raises(ConfigError, match="for classification"):
            SEGMENTATION.loss(names=2, cases=(), device="cpu", **settings)
