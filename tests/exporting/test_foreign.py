"""Content that a model was not made for keeps the form that the model takes, and is no ordinary image any more."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.exporting.foreign import CINE, PHOTOGRAPH, Kind


@pytest.mark.parametrize("kind", CINE.values(), ids=CINE)
@pytest.mark.parametrize("shape", [(2, 40, 30, 9), (2, 24, 24, 1)])
def test_a_cine_becomes_another_stack(kind: Kind, shape: tuple[int, ...]) -> None:
    image = 500 * torch.rand(*shape, generator=torch.Generator().manual_seed(1))
    before = image.clone()
    found = kind(image)
    assert found.shape[:3] == image.shape[:3]
    assert found.ndim == 4
    assert found.shape[3] <= shape[3]
    assert torch.isfinite(found).all()
    assert torch.equal(image, before)
    assert torch.equal(kind(image), found)
    assert found.shape != image.shape or not torch.allclose(found, image) or shape[3] == 1


@pytest.mark.parametrize("kind", PHOTOGRAPH.values(), ids=PHOTOGRAPH)
@pytest.mark.parametrize("shape", [(3, 64, 80), (3, 33, 21)])
def test_a_photograph_becomes_another_one(kind: Kind, shape: tuple[int, ...]) -> None:
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(1))
    before = image.clone()
    found = kind(image)
    assert found.ndim == 3
    assert found.shape[0] == 3
    assert 0 <= float(found.min()) < float(found.max()) <= 1
    assert torch.equal(image, before)
    assert torch.equal(kind(image), found)
    assert found.shape != image.shape or not torch.allclose(found, image)
