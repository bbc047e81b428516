"""Resampling is MONAI's where the stack lies along the world, and the same for any tilt."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from monai_fedlora.transforms.orientation import reference_affine
from monai_fedlora.transforms.resampling import resample

TARGET = [2.5, 2.5, 10.0]


def noise(shape) -> torch.Tensor:
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(40, 33, 9), (31, 52, 3)])
@pytest.mark.parametrize("spacing", [(1.3, 1.3, 8.0), (2.5, 2.5, 10.0), (3.1, 2.2, 5.0), (4.0, 4.0, 13.0)])
def test_monai_computes_the_same(shape, spacing):
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    expected = Spacing(TARGET, mode="bilinear", padding_mode="border", align_corners=True)(
        MetaTensor(noise(shape), affine=affine)
    )
    image, moved = resample(noise(shape), affine, TARGET)
    torch.testing.assert_close(image, expected.as_tensor(), atol=2e-5, rtol=0)
    np.testing.assert_allclose(moved.numpy(), expected.affine.numpy(), atol=1e-6)


def test_a_tilt_changes_nothing():
    straight = torch.diag(torch.tensor([1.3, 1.3, 8.0, 1.0], dtype=torch.float64))
    oblique = reference_affine((1.3, 1.3, 8.0))
    oblique[:3, :3] *= torch.tensor([1.3, 1.3, 8.0]) / oblique[:3, :3].norm(dim=0)
    first, second = (resample(noise((20, 21, 5)), affine, TARGET)[0] for affine in (straight, oblique))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_a_stack_of_the_wanted_size_stays_as_it_is():
    affine = reference_affine((2.5, 2.5, 10.0))
    affine[:3, :3] *= 1 + 1e-6
    image, moved = resample(noise((9, 8, 4)), affine, TARGET)
    assert torch.equal(image, noise((9, 8, 4)))
    assert torch.equal(moved, affine)


def test_levels_go_on_behind_the_last_voxel():
    affine = torch.diag(torch.tensor([2.5, 2.5, 6.0, 1.0], dtype=torch.float64))
    image, _ = resample(noise((4, 4, 3)), affine, TARGET)  # slices at 0, 6 and 12 mm; wanted at 0 and 10
    assert image.shape[3] == 2
    image, _ = resample(noise((4, 4, 4)), affine, TARGET)  # up to 18 mm; wanted up to 20
    torch.testing.assert_close(image[..., 2], noise((4, 4, 4))[..., 3])


def test_units_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="units"):
        resample(noise((9, 9, 4)), torch.diag(torch.tensor([2000.0, 2000.0, 10000.0, 1.0])), TARGET)
