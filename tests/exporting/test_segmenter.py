"""The exported module gives the numbers of the package's measures, in whatever order the axes of a file are."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from monai_fedlora.exporting.check.script_code import code_objection
from monai_fedlora.exporting.cine_modality import CheckedCine
from monai_fedlora.exporting.photograph_modality import CheckedPhotograph
from monai_fedlora.exporting.segmenter import CineSegmenter, PhotographSegmenter
from monai_fedlora.measures.given_numbers import given_numbers
from monai_fedlora.transforms.localise import CinePreprocessor
from monai_fedlora.transforms.orientation import reference_affine
from monai_fedlora.transforms.photograph import photograph_preprocessor


def heart(*, first: int, last: int, gap: bool = False) -> Tensor:
    """Slices of an ellipsoid with a wall and a neighbour, (2, 24, 24, last - first)."""
    x, y, z = np.meshgrid(np.arange(24) - 9, np.arange(24) - 12, np.arange(12) - 2, indexing="ij")
    frames = []
    for size in (6.0, 4.0):
        radius = size * np.sqrt(np.clip(1 - (z / 8.5) ** 2, 0, 1))
        distance = np.hypot(x, y)
        mask = np.where(distance < radius, 1, np.where((distance < radius + 2) & (radius > 0), 2, 0))
        frames.append(np.where((mask == 0) & (np.hypot(x - 10, y) < radius / 2), 3, mask))
    found = np.stack(frames)
    if gap:
        found[..., 5] = 0
    return torch.from_numpy(found[..., first:last].astype(np.uint8))


def segmenter(slices: int, step: float, values: tuple[int, int, int] = (1, 2, 3)) -> CineSegmenter:
    preprocessor = CinePreprocessor((24, 24, slices), (1.5, 1.5, step))
    return CineSegmenter(CheckedCine(preprocessor), nn.Identity(), values=values)


@given(
    first=st.integers(0, 5), last=st.integers(7, 12), gap=st.booleans(), z=st.sampled_from([5.0, 8.0, 12.5]),
    order=st.permutations([0, 1, 2]), flips=st.lists(st.sampled_from([1, 2, 3]), unique=True), known=st.booleans(),
    slices=st.sampled_from([99, 9, 6]), step=st.sampled_from([5.0, 8.0, 10.0]),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_numbers_and_reasons_are_those_of_the_measures(
    first: int,
    last: int,
    gap: bool,
    z: float,
    order: list[int],
    flips: list[int],
    known: bool,
    slices: int,
    step: float,
) -> None:
    mask, spacing = heart(first=first, last=last, gap=gap), (1.5, 1.5, z)
    expected = given_numbers(mask, spacing=spacing, oriented=known, seen=(slices, step))
    affine = reference_affine(spacing) if known else torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    stored, placed = mask, affine
    if known:  # any order of the file is brought back by its affine
        stored = mask.permute(0, *(axis + 1 for axis in order))
        placed = affine[:, [*order, 3]].clone()
        for axis in flips:
            stored = stored.flip(axis)
            placed[:, 3] += placed[:, axis - 1] * (stored.shape[axis] - 1)
            placed[:, axis - 1] *= -1
    numbers, reason = segmenter(slices, step).measure(stored, placed)
    assert reason == "; ".join(expected.no_volume_because)
    if expected.function is None:
        assert numbers.isnan().all()
    else:
        assert numbers.tolist() == pytest.approx(list(expected.function.to_row().values()))


def test_structures_that_a_mask_has_not_have_no_numbers() -> None:
    numbers, reason = segmenter(99, 8.0, (1, 0, 0)).measure(heart(first=0, last=12), reference_affine((1.5, 1.5, 8.0)))
    assert [not math.isnan(value) for value in numbers.tolist()] == [True] * 4 + [False] * 5 and reason == ""
    numbers, reason = segmenter(99, 8.0, (0, 1, 2)).measure(heart(first=0, last=12), reference_affine((1.5, 1.5, 8.0)))
    assert numbers.isnan().all() and "LV" in reason


def test_as_a_script_it_gives_the_same_and_its_code_passes_the_check() -> None:
    model, affine = segmenter(99, 8.0), reference_affine((1.5, 1.5, 8.0))
    script = torch.jit.script(model)
    for mask in (heart(first=0, last=12), heart(first=4, last=8, gap=True)):
        (numbers, reason), (expected, why) = script.measure(mask, affine), model.measure(mask, affine)
        torch.testing.assert_close(numbers, expected, equal_nan=True)
        assert reason == why
    codes = code_of(script)
    assert any("measures/heart_numbers.py" in name for name in codes)
    assert {name: said for name, code in codes.items() if (said := code_objection(code))} == {}


def code_of(script: torch.jit.ScriptModule) -> dict[str, str]:
    """The source in a script's file, by name."""
    stored = io.BytesIO()
    torch.jit.save(script, stored)
    with zipfile.ZipFile(stored) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}


def everywhere() -> nn.Module:
    """Logits of the second structure in every pixel, by modules that a bundle may hold."""
    to_logits = nn.Conv2d(3, 3, kernel_size=1)
    with torch.no_grad():
        to_logits.weight.zero_()
        to_logits.bias = nn.Parameter(torch.tensor([0.0, 0.0, 1.0]))
    return nn.Sequential(to_logits, nn.Unflatten(1, (1, 3)))


@pytest.mark.parametrize("style", ["dermoscopy", "fundus"])
def test_a_photograph_is_outlined_where_its_preprocessing_looks_and_nowhere_else(style: str) -> None:
    preprocessor = photograph_preprocessor(style=style, image_size=(16, 16), mean=[0.0] * 3, std=[1.0] * 3)
    script = torch.jit.script(PhotographSegmenter(CheckedPhotograph(preprocessor), everywhere()))
    image = torch.zeros(1, 3, 30, 50)
    image[0, :, 5:25, 20:40] = 0.7 + 0.2 * torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(1))
    first, after_row, left, after_column = preprocessor.box(image[0])
    assert (after_column - left) < 50
    expected = torch.zeros(1, 30, 50, dtype=torch.uint8)
    expected[:, first:after_row, left:after_column] = 2
    assert torch.equal(script(image), expected)
    own = {
        name: code for name, code in code_of(script).items() if "/monai_fedlora/" in name
    }  # a convolution has its own
    assert any("exporting/segmenter.py" in name for name in own)
    assert {name: said for name, code in own.items() if (said := code_objection(code))} == {}
