"""Directions come from public images alone, and are those of the classical discriminants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.directions import MIDDLE, MOST, QUANTILE, PublicFeatures, find_directions


def group(n: int, at: int, *, dim: int = 12, scale: float = 1.0) -> Tensor:
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99))
    centre = 3 * torch.randn(dim, generator=torch.Generator().manual_seed(500 + at))
    return scale * torch.randn(n, dim, generator=torch.Generator().manual_seed(at)) @ mixing + centre


def public(devices: int = 3, kinds: int = 2, n: int = 40) -> PublicFeatures:
    return PublicFeatures(
        ordinary={f"device {at}": group(n, at) for at in range(devices)},
        foreign={f"kind {at}": group(9, 100 + at, scale=3) for at in range(kinds)},
    )


def test_they_span_the_generalised_eigenvectors_of_between_and_within_groups() -> None:
    given = public()
    found = find_directions(given).matrix.numpy()
    ordinary = [value.double().numpy() for value in given.ordinary.values()]
    within, _ = ledoit_wolf(np.concatenate([g - g.mean(axis=0) for g in ordinary]), assume_centered=True)
    means = np.stack([value.double().numpy().mean(axis=0) for value in (*ordinary_and(given),)])
    between = (means - means.mean(axis=0)).T @ (means - means.mean(axis=0))
    values, vectors = eigh(between, within)
    expected = vectors[:, np.argsort(values)[::-1][: found.shape[1]]]
    together = np.linalg.svd(np.linalg.qr(found)[0].T @ np.linalg.qr(expected)[0], compute_uv=False)
    assert together == pytest.approx(np.ones(found.shape[1]), abs=1e-6)
    assert found.T @ within @ found == pytest.approx(np.eye(found.shape[1]), abs=1e-6)


def ordinary_and(given: PublicFeatures) -> list[Tensor]:
    return [*given.ordinary.values(), *given.foreign.values()]


def test_there_are_no_more_than_groups_can_differ_in() -> None:
    assert find_directions(public(devices=2, kinds=0)).matrix.shape[1] == 1
    assert find_directions(public(devices=3, kinds=2)).matrix.shape[1] == 4
    assert find_directions(public(devices=6, kinds=6)).matrix.shape[1] == MOST


def test_spread_and_tail_hold_for_images_that_had_no_part_in_them() -> None:
    found = find_directions(public(devices=4, n=400))
    new = (group(4000, 2) - group(400, 2).mean(dim=0)).double()[2000:]
    lengths = (new @ found.matrix).norm(dim=1)
    assert float((lengths <= found.spread).double().mean()) == pytest.approx(QUANTILE, abs=0.02)
    assert float((lengths <= found.spread / found.tail).double().mean()) == pytest.approx(MIDDLE, abs=0.05)
    assert found.radius > found.spread > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PublicFeatures(ordinary={}, foreign={}), "too few public images"),
        (PublicFeatures(ordinary={"a": group(7, 1), "b": group(40, 2)}, foreign={}), "too few public images"),
        (PublicFeatures(ordinary={"a": group(40, 1)}, foreign={}), "too few public images"),
        (PublicFeatures(ordinary={"a": torch.ones(9, 3), "b": torch.ones(9, 3)}, foreign={}), "sees public images"),
    ],
)
def test_images_that_cannot_choose_directions_are_refused(given: PublicFeatures, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        find_directions(given)
