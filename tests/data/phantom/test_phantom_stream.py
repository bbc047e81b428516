from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from monai_fedlora.data.endless import stream_loader
from monai_fedlora.data.phantom.free_patient import make_free_patient
from monai_fedlora.data.phantom.heart_truth import TRUTHS
from monai_fedlora.data.phantom.phantom_stream import PhantomStream
from monai_fedlora.errors import ConfigError
from monai_fedlora.transforms.localise import crop_start, heart_centre, normalise_cine
from monai_fedlora.transforms.resampling import resample

SIZE, SPACING = (48, 48, 8), (3.3, 3.3, 10.0)


@pytest.fixture(scope="module")
def stream() -> PhantomStream:
    return PhantomStream(image_size=SIZE, spacing=SPACING, seed=4)


@pytest.fixture(scope="module")
def items(stream: PhantomStream) -> list[dict[str, Any]]:
    return [stream[index] for index in range(4)]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_an_item_is_what_a_training_reads(items) -> None:
    for item in items:
        assert item["image"].shape == (2, *SIZE) and item["image"].dtype == torch.float32
        assert item["mask"].shape == (2, 3, *SIZE) and item["mask"].dtype == torch.uint8
        assert item["targets"].shape == (len(TRUTHS),) and item["targets"].isfinite().all()
        assert item["image"].min() >= 0 and item["image"].max() <= 1 and item["image"].std() > 0.05
        assert item["mask"].long().sum(1).max() <= 257  # three shares, each rounded
        assert -1 <= int(item["label"]) < 5


def test_a_number_is_an_item(stream, items) -> None:
    assert same(stream[3], items[3]) and not same(items[2], items[3])
    other = PhantomStream(image_size=SIZE, spacing=SPACING, seed=5)
    assert not torch.equal(other[3]["targets"], items[3]["targets"])
    with pytest.raises(ConfigError, match="begin at 0"):
        stream[-1]


def test_the_heart_of_an_item_does_not_depend_on_the_grid(items) -> None:
    fine = PhantomStream(image_size=(80, 80, 12), spacing=(2.0, 2.0, 8.0), seed=4)[1]
    assert torch.equal(fine["targets"], items[1]["targets"]) and fine["label"] == items[1]["label"]


def test_image_and_mask_are_what_the_preprocessing_of_files_gives(stream, items) -> None:
    """Whatever order the file had, with the orientation known: resampled whole, then cropped."""
    number = next(number for number, item in enumerate(items) if not item["placeholder"])
    item, patient = items[number], make_free_patient((stream.seed, number))
    affine = torch.diag(torch.tensor([*patient.spacing, 1.0], dtype=torch.float64))
    image, _ = resample(torch.from_numpy(patient.image).permute(0, 3, 2, 1), affine, list(SPACING))
    assert torch.allclose(item["image"], normalise_cine(image, SIZE, SPACING[0]), atol=1e-5)
    column, row = patient.corner
    *_, height, width = patient.occupancy.shape
    shares = torch.zeros((2, 3, *patient.image.shape[1:]))
    shares[..., row : row + height, column : column + width] = torch.from_numpy(patient.occupancy)
    whole, _ = resample(shares.flatten(0, 1).permute(0, 3, 2, 1), affine, list(SPACING))
    x, y = (crop_start(float(heart_centre(image, SPACING[0])[axis]), image.shape[axis + 1], 48) for axis in range(2))
    z = max(image.shape[3] - 8, 0) // 2
    crop = whole[:, x : x + 48, y : y + 48, z : z + 8]
    expected = torch.nn.functional.pad(crop, [0, 8 - crop.shape[3]]).unflatten(0, (2, 3))
    assert torch.allclose(item["mask"].float() / 255, expected, atol=0.003)


@pytest.mark.slow
def test_batches_are_the_same_with_workers_and_after_a_restart(stream) -> None:
    alone = list(itertools.islice(stream_loader(stream, batch_size=2), 3))
    together = list(itertools.islice(stream_loader(stream, batch_size=2, workers=2), 3))
    resumed = next(iter(stream_loader(stream, batch_size=2, start=4)))
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))
    assert same(resumed, alone[2])
