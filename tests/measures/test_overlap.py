from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_fedlora.errors import DataError
from monai_fedlora.measures.overlap import compare_masks
from tests.measures.shapes import ball, plain_dice, plain_hausdorff_95

SPACING = (1.4, 1.4, 9.0)
NAMES = ("LV", "MYO", "RV")


def compared(found, truth, **changes):
    settings = {"structures": NAMES, "phases": ("ED", "ES"), "spacing": SPACING} | changes
    return {(one.phase, one.structure): one for one in compare_masks(found, truth, **settings)}


def rough(seed: int, *, shape=(2, 24, 22, 6)) -> np.ndarray:
    """Nested balls of whose voxels one in ten has another value."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.int64)
    for frame in mask:
        centre = (12 + rng.normal(), 11 + rng.normal(), 2.5)
        frame[ball(shape[1:], centre, 13, SPACING)] = 2
        frame[ball(shape[1:], centre, 8, SPACING)] = 1
        frame[2:6, 8:14, 1:4] = 3
    other = rng.random(shape) < 0.1
    mask[other] = rng.integers(0, 4, other.sum())
    return mask


def test_equal_a_plain_implementation() -> None:
    found, truth = rough(1), rough(2)
    for (phase, name), one in compared(torch.from_numpy(found), torch.from_numpy(truth)).items():
        frame, value = ("ED", "ES").index(phase), NAMES.index(name) + 1
        ours, theirs = found[frame] == value, truth[frame] == value
        assert one.dice == pytest.approx(plain_dice(ours, theirs), abs=1e-6)
        assert one.hausdorff_95 == pytest.approx(plain_hausdorff_95(ours, theirs, SPACING), rel=1e-5)
        assert (one.found, one.truth) == (ours.sum(), theirs.sum())


def test_a_shift_by_one_slice_is_as_far_as_the_slice_distance() -> None:
    truth = np.zeros((1, 8, 8, 5), np.uint8)
    truth[0, 3:5, 3:5, 2] = 1
    found = np.roll(truth, 1, axis=3)
    (one,) = compare_masks(found, truth, structures=("LV",), phases=("ED",), spacing=SPACING)
    assert (one.dice, one.hausdorff_95) == (0.0, 9.0)


def test_a_structure_in_neither_mask_is_undefined_and_in_one_alone_is_no_overlap() -> None:
    found, truth = np.zeros((2, 2, 9, 9, 4), np.uint8)
    found[0, 2:4, 2:4, 1] = 1
    truth[1, 2:4, 2:4, 1] = 1
    result = compared(found, truth)
    invented, missed, neither = result["ED", "LV"], result["ES", "LV"], result["ED", "RV"]
    assert (invented.dice, invented.hausdorff_95, invented.invented, invented.missed) == (0.0, None, True, False)
    assert (missed.dice, missed.hausdorff_95, missed.invented, missed.missed) == (0.0, None, False, True)
    assert (neither.dice, neither.hausdorff_95, neither.invented, neither.missed) == (None, None, False, False)
    assert missed.to_row()["voxels_truth"] == 4


def test_structures_that_the_reference_does_not_outline_are_left_out() -> None:
    found, truth = rough(1), np.where(rough(2) == 1, 1, 0)
    result = compared(found, truth, labelled=torch.tensor([True, True, False, False]))
    assert set(result) == {("ED", "LV"), ("ES", "LV")}


def test_photographs_are_compared_in_pixels() -> None:
    truth = np.zeros((1, 30, 30), np.uint8)
    truth[0, 10:20, 10:20] = 1
    found = np.roll(truth, 3, axis=2)
    (one,) = compare_masks(found, truth, structures=("lesion",), phases=("image",), spacing=(1, 1))
    assert one.dice == pytest.approx(0.7) and one.hausdorff_95 == 3.0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.zeros((2, 9, 9, 5), int), "shape"),
        (np.full((2, 9, 9, 4), 4), "from 4 to 4"),
        (np.full((2, 9, 9, 4), 0.3), "probabilities"),
        (np.zeros((9, 9, 4), int), "4 axes"),
        (np.full((2, 9, 9, 4), np.nan), "whole numbers"),
    ],
)
def test_what_is_no_mask_of_the_same_grid_is_refused(found, message) -> None:
    with pytest.raises(DataError, match=message):
        compared(found, np.zeros((2, 9, 9, 4), int))


def test_wrong_numbers_of_names_and_sizes_are_refused() -> None:
    mask = np.zeros((2, 9, 9, 4), int)
    with pytest.raises(DataError, match="names of phases"):
        compared(mask, mask, phases=("ED",))
    with pytest.raises(DataError, match="names of phases"):
        compared(mask, mask, labelled=[True, True])
    with pytest.raises(DataError, match="slice distance"):
        compared(mask, mask, spacing=(1.4, 1.4, 0.0))
