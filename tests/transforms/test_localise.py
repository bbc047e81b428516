"""The heart is found without a mask, and the crop is normalised as written down."""

import math

import numpy as np
import pytest
import torch

from monai_fedlora.transforms.localise import (
    CinePreprocessor,
    crop_start,
    heart_centre,
    normalise_cine,
    percentile,
)
from monai_fedlora.transforms.orientation import reference_affine

AFFINE = reference_affine((2.0, 2.0, 10.0))[None]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def miss_mm(image, centre_mm, spacing_mm=2.0):
    centre = heart_centre(torch.as_tensor(image), spacing_mm)
    return math.dist([float(c) * spacing_mm for c in centre], centre_mm)


@pytest.mark.parametrize("centre_mm", [(90.0, 80.0), (60.0, 100.0), (120.0, 70.0)])
def test_centre_lands_on_the_contracting_disc(heart, centre_mm):
    assert miss_mm(heart(centre_mm=centre_mm), centre_mm) < 12


def test_a_heart_in_the_middle_is_found_to_sub_voxel_precision(heart):
    assert miss_mm(heart(centre_mm=(95.0, 87.0)), (95.0, 87.0)) < 1


def test_gain_and_offset_of_a_frame_change_nothing(heart):
    image = torch.from_numpy(heart())
    other = image.clone()
    other[1] = other[1] * 0.3 + 40
    assert torch.allclose(heart_centre(other, 2.0), heart_centre(image, 2.0), atol=1e-3)


def test_swapping_the_frames_changes_nothing(heart):
    image = torch.from_numpy(heart())
    assert torch.equal(heart_centre(image.flip(0), 2.0), heart_centre(image, 2.0))


def test_centre_agrees_between_grids(heart):
    coarse = heart_centre(torch.from_numpy(heart(spacing=(2.5, 2.5, 10.0), shape=(77, 71, 9))), 2.5) * 2.5
    fine = heart_centre(torch.from_numpy(heart(spacing=(1.0, 1.0, 10.0), shape=(192, 176, 9))), 1.0)
    assert torch.dist(coarse, fine) < 4


@pytest.mark.parametrize("frames", ["constant", "identical", "zero"])
def test_without_motion_the_image_centre_is_used(heart, frames):
    image = torch.from_numpy(heart())
    image = {
        "constant": torch.full_like(image, 7),
        "identical": image[:1].repeat(2, 1, 1, 1),
        "zero": image * 0,
    }[frames]
    assert heart_centre(image, 2.0).tolist() == [47.5, 43.5]
    result = normalise_cine(image, (32, 32, 4), 2.0)
    assert result.shape == (2, 32, 32, 4)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("shape", [(3, 2, 1), (1, 1, 1), (5, 90, 2)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_tiny_images_and_extreme_grey_levels_stay_finite(shape, scale):
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) * scale
    result = normalise_cine(image, (16, 16, 4), 1.0)
    assert torch.isfinite(heart_centre(image, 1.0)).all()
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 4321])
@pytest.mark.parametrize("percent", [0.0, 0.95, 37.0, 50.0, 99.5, 100.0])
def test_percentile_equals_numpy(count, percent):
    values = np.random.default_rng(count).normal(0, 100, count).astype(np.float32)
    expected = np.percentile(values.astype(np.float64), percent)
    assert float(percentile(torch.from_numpy(values), percent)) == pytest.approx(expected, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize(
    ("centre", "length", "size", "expected"),
    [(10.0, 30, 8, 7), (9.5, 30, 8, 6), (1.0, 30, 8, 0), (29.0, 30, 8, 22), (3.0, 6, 8, 0), (4.0, 9, 3, 3)],
)
def test_crop_window_stays_inside_the_image(centre, length, size, expected):
    assert crop_start(centre, length, size) == expected


def reference(image, size, spacing_mm):
    """The same written with numpy."""
    centre = heart_centre(torch.from_numpy(image), spacing_mm).numpy()
    out = np.zeros((2, *size), np.float32)
    windows, places = [], []
    for axis in (0, 1):
        have, want = image.shape[1 + axis], size[axis]
        start = 0 if have <= want else int(np.clip(np.floor(centre[axis] - want / 2 + 1), 0, have - want))
        windows.append(slice(start, start + want))
        places.append(slice((want - have) // 2, (want - have) // 2 + have) if have < want else slice(None))
    first = max(image.shape[3] - size[2], 0) // 2
    crop = image[:, windows[0], windows[1], first : first + size[2]].astype(np.float64)
    for channel, frame in enumerate(crop):
        low, high = np.percentile(frame, [0.95, 99.5])
        out[(channel, *places, slice(0, frame.shape[2]))] = np.clip((frame - low) / (high - low), 0, 1)
    return out


@pytest.mark.parametrize("size", [(64, 64, 8), (40, 48, 12), (128, 128, 16), (128, 40, 4), (97, 89, 9)])
def test_normalising_equals_numpy(heart, size):
    image = heart()
    result = normalise_cine(torch.from_numpy(image), size, 2.0)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), reference(image, size, 2.0), atol=1e-6)


def test_padding_does_not_enter_the_percentiles(heart):
    image = torch.from_numpy(heart()) + 500
    padded = normalise_cine(image, (128, 128, 16), 2.0)
    exact = normalise_cine(image, (96, 88, 9), 2.0)
    assert torch.equal(padded[:, 16:112, 20:108, :9], exact)
    assert padded[..., 9:].abs().max() == 0
    assert exact.max() == 1


def test_scripted_code_gives_the_same_bits_on_any_shape(heart):
    module = CinePreprocessor((48, 48, 8), (2.0, 2.0, 10.0))
    scripted = torch.jit.script(module)
    for shape in [(96, 88, 9), (40, 70, 3), (80, 80, 14)]:
        image = torch.from_numpy(heart(shape=shape))
        expected = normalise_cine(image, (48, 48, 8), 2.0)
        assert torch.equal(scripted(image[None], AFFINE)[0], expected)
        assert torch.equal(module(image[None], AFFINE)[0], expected)


def test_scripted_module_keeps_following_the_heart_inside_a_traced_one(heart, tmp_path):
    class Exported(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.prepare = torch.jit.script(CinePreprocessor((48, 48, 8), (2.0, 2.0, 10.0)))

        def forward(self, image, affine):
            return self.prepare(image, affine).mean(dim=(2, 3, 4))

    traced = torch.jit.trace(Exported(), (torch.from_numpy(heart())[None], AFFINE), check_trace=False)
    traced.save(str(tmp_path / "model.ts"))
    traced = torch.jit.load(str(tmp_path / "model.ts"))
    other = torch.from_numpy(heart(shape=(70, 110, 12), centre_mm=(60.0, 130.0)))
    expected = normalise_cine(other, (48, 48, 8), 2.0).mean(dim=(1, 2, 3))
    assert torch.allclose(traced(other[None], AFFINE)[0], expected, atol=1e-6)
