from __future__ import annotations

import torch

from monai_fedlora.transforms.picture_changes import change_pictures


def discs(count: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    return (((x - 20) ** 2 + (y - 12) ** 2) < 36).float().expand(count, 1, 32, 32)


def test_maps_move_with_their_image() -> None:
    maps = discs(8)
    image = (1 - 0.8 * maps).expand(-1, 3, -1, -1)
    shown, moved = change_pictures(image, maps, torch.Generator().manual_seed(0))
    assert shown.shape == image.shape and moved.shape == maps.shape
    assert shown.min() >= 0 and shown.max() <= 1 and moved.min() >= 0 and moved.max() <= 1
    for one, there in zip(shown.mean(1), moved[:, 0] > 0.5, strict=True):
        assert one[there].mean() < one[~there].mean() - 0.2
    assert not torch.equal(moved[0], moved[1]) and not torch.equal(shown[0], shown[1])
    torch.testing.assert_close(moved.mean((1, 2, 3)), maps.mean((1, 2, 3)), rtol=0.25, atol=0)


def test_changes_follow_from_the_generator_alone() -> None:
    image, maps = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    first, again, other = (change_pictures(image, maps, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and not torch.equal(first[0], other[0])
