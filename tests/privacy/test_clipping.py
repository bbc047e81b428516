from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_fedlora.privacy.clipping import added, clipped_sum, noised_mean
from monai_fedlora.privacy.randomness import Randomness

SHAPES = {"a": (2, 3), "b": (4,), "c": ()}
clips = st.floats(1e-3, 1e3)


def gradients_of(patients: Sequence[int], scale: float) -> dict[str, Tensor]:
    """Gradients of numbered patients, of very different lengths."""
    rows: dict[str, list[Tensor]] = {name: [] for name in SHAPES}
    for patient in patients:
        generator = torch.Generator().manual_seed(patient)
        own = scale * math.exp(3 * torch.randn((), generator=generator))
        for name, shape in SHAPES.items():
            rows[name].append(own * torch.randn(shape, generator=generator))
    return {name: torch.stack(found) if found else torch.zeros(0, *SHAPES[name]) for name, found in rows.items()}


def length(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))


def minus(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: one[name] - other[name] for name in one}


@given(patients=st.lists(st.integers(0, 10**6), max_size=8), scale=st.floats(1e-4, 1e4), clip=clips)
@settings(max_examples=60)
def test_adding_a_patient_changes_a_sum_by_the_limit_at_most(patients: list[int], scale: float, clip: float) -> None:
    whole, _ = clipped_sum(gradients_of([*patients, -1], scale), clip)
    without, _ = clipped_sum(gradients_of(patients, scale), clip)
    assert length(minus(whole, without)) <= clip


@given(patient=st.integers(0, 10**6), scale=st.floats(1e-4, 1e4), clip=clips)
@settings(max_examples=60)
def test_a_gradient_keeps_its_direction_and_is_never_longer_than_the_limit(
    patient: int, scale: float, clip: float
) -> None:
    gradient = gradients_of([patient], scale)
    found, unusable = clipped_sum(gradient, clip)
    expected = min(1.0, clip / length(gradient))
    assert unusable == 0
    assert length(found) <= clip
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected * gradient[name][0].double(), rtol=2e-6, atol=0)


@given(weights=st.lists(st.floats(0, 1), min_size=4, max_size=4))
@settings(max_examples=40)
def test_weights_scale_what_was_clipped_and_never_beyond_the_limit(weights: list[float]) -> None:
    gradients = gradients_of(range(4), 100.0)
    found, _ = clipped_sum(gradients, 0.5, torch.tensor(weights, dtype=torch.float64))
    for name, tensor in found.items():
        each = [clipped_sum({key: part[[i]] for key, part in gradients.items()}, 0.5)[0][name] for i in range(4)]
        expected = sum(weight * one for weight, one in zip(weights, each, strict=True))
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("weight", [1 + 1e-6, -1e-6, math.nan, math.inf])
def test_a_weight_beyond_the_limit_is_an_error(weight: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        clipped_sum(gradients_of(range(2), 1.0), 0.5, torch.tensor([1.0, weight]))


def test_short_gradients_are_added_as_they_are() -> None:
    gradients = gradients_of(range(5), 1e-6)
    found, _ = clipped_sum(gradients, 1.0)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, gradients[name].double().sum(0))


def test_a_gradient_of_zero_stays_zero() -> None:
    found, unusable = clipped_sum({"a": torch.zeros(1, 3)}, 1.0)
    assert unusable == 0
    assert found["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_counts_as_nobody(value: float) -> None:
    gradients = gradients_of(range(4), 1.0)
    expected, _ = clipped_sum({name: tensor[[0, 1, 3]] for name, tensor in gradients.items()}, 0.7)
    gradients["b"][2, 1] = value
    found, unusable = clipped_sum(gradients, 0.7)
    assert unusable == 1
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])


def test_chunks_add_up_and_no_chunk_is_zero() -> None:
    gradients = gradients_of(range(7), 1.0)
    whole, _ = clipped_sum(gradients, 1.0)
    chunks = [clipped_sum({k: v[rows] for k, v in gradients.items()}, 1.0)[0] for rows in (slice(3), slice(3, 7))]
    one = {name: tensor[0] for name, tensor in gradients.items()}
    for name, tensor in added(chunks, one).items():
        torch.testing.assert_close(tensor, whole[name])
    assert length(added([], one)) == 0


def test_noise_has_the_length_that_was_asked_for_whatever_the_sum_is() -> None:
    """The squared length over the variance is chi-squared."""
    sums = {"a": torch.full((200, 50), 3.0, dtype=torch.float64), "b": torch.zeros(10_000, dtype=torch.float64)}
    found = noised_mean(sums, clip=0.5, noise_multiplier=1.2, expected=8, randomness=Randomness.seeded(0))
    for name, tensor in found.items():
        noise = (tensor.double() - sums[name] / 8).flatten().numpy() * 8 / (1.2 * 0.5)
        assert abs((noise**2).sum() - noise.size) < 4 * math.sqrt(2 * noise.size)
        assert abs(noise.mean()) < 4 / math.sqrt(noise.size)
        assert tensor.dtype == torch.float32
    assert not np.array_equal(found["a"].flatten().numpy() - 3 / 8, found["b"].numpy())
