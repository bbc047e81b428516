from __future__ import annotations

import torch

from monai_fedlora.transforms.pair_augmentation import augment_pairs


def blobs(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Discs whose grey level is their share: an image that says where its mask is."""
    axis = torch.linspace(-1, 1, 32)
    distance = (axis[:, None] - 0.1) ** 2 + (axis[None] + 0.2) ** 2
    disc = (distance < 0.12).float()[:, :, None].expand(32, 32, 4)
    return disc.expand(batch, 2, 32, 32, 4), disc.expand(batch, 3, 32, 32, 4)


def augmented(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augment_pairs(*blobs(), torch.Generator().manual_seed(seed))


def test_image_and_shares_move_together() -> None:
    image, shares = augmented()
    inside, outside = shares[:, :1] > 0.9, shares[:, :1] < 0.1
    for case, within, without in zip(image[:, :1], inside, outside, strict=True):
        assert case[within].mean() > 0.4
        assert case[without].mean() < 0.1


def test_sizes_stay() -> None:
    _, shares = augmented()
    before = blobs()[1].sum((2, 3, 4))
    torch.testing.assert_close(shares.sum((2, 3, 4)), before, rtol=0.25, atol=0)
    assert abs(float((shares.sum((2, 3, 4)) / before).mean()) - 1) < 0.08


def test_values_stay_in_range_and_cases_differ() -> None:
    image, shares = augmented()
    for part in (image, shares):
        assert part.min() >= 0
        assert part.max() <= 1
        assert not torch.equal(part[0], part[1])


def test_a_seed_gives_the_same_bits() -> None:
    assert all(map(torch.equal, augmented(3), augmented(3)))
    assert not torch.equal(augmented(3)[0], augmented(4)[0])
