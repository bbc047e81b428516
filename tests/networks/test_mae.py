from __future__ import annotations

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.mae import MaskedAutoencoder, random_visible


def build(mask_ratio: float = 0.75) -> MaskedAutoencoder:
    torch.manual_seed(0)
    backbone = ConvViT(
        image_size=(16, 8, 2),
        n_frames=2,
        out_chans=2,
        patch_size=(2, 2, 1),
        scale_factor=(2, 2, 1),
        conv_chans=(3,),
        conv_n_blocks=2,
        embed_dim=12,
        depth=2,
        n_heads=2,
    )
    return MaskedAutoencoder(backbone, mask_ratio=mask_ratio, decoder_dim=12, decoder_depth=1, decoder_heads=2)


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 2, 16, 8, 2, generator=torch.Generator().manual_seed(1))


def voxels(token: int) -> tuple[slice, ...]:
    """The voxels of a token in every frame; the grid is (4, 2, 2) in x, y, z order and a token spans (4, 4, 1)."""
    x, y, z = token // 4, token // 2 % 2, token % 2
    return slice(None), slice(4 * x, 4 * x + 4), slice(4 * y, 4 * y + 4), slice(z, z + 1)


def test_masked_voxels_are_never_seen() -> None:
    network, x = build(), images(1)
    keep = torch.tensor([[0, 5, 6, 15]])
    before = network.reconstruct(x, keep)
    for token in set(range(16)) - set(keep[0].tolist()):
        x[0][voxels(token)] = 100.0
    torch.testing.assert_close(network.reconstruct(x, keep), before, rtol=0, atol=0)


@pytest.mark.parametrize("token", [0, 5, 6, 15])
def test_every_visible_token_is_seen(token: int) -> None:
    network, x = build(), images(1)
    keep = torch.tensor([[0, 5, 6, 15]])
    before = network.reconstruct(x, keep)
    x[0][voxels(token)] += torch.rand(4, 4, 1)
    assert (network.reconstruct(x, keep) - before).abs().max() > 1e-4


def test_the_loss_is_the_error_on_normalised_masked_patches() -> None:
    network, x = build(), images()
    keep = torch.tensor([[0, 5, 6, 15], [1, 2, 3, 4]])
    predicted = network.reconstruct(x, keep)
    errors = []
    for image in range(2):
        for token in set(range(16)) - set(keep[image].tolist()):
            patch = x[image][voxels(token)].permute(1, 2, 3, 0).reshape(-1)  # the channel is fastest
            patch = (patch - patch.mean()) / torch.sqrt(patch.var() + 1e-2)
            errors.append(((predicted[image, token] - patch) ** 2).mean())
    torch.testing.assert_close(network(x, keep), torch.stack(errors).mean())


def test_all_of_the_backbone_but_its_heads_is_trained() -> None:
    network = build()
    network(images(), random_visible(2, 16, 4)).backward()
    for key, parameter in network.named_parameters():
        assert (parameter.grad is None) == ("pred_head_dict" in key), key


def test_visible_tokens_are_distinct_sorted_and_uniform() -> None:
    keep = random_visible(2000, 8, 2, torch.Generator().manual_seed(0))
    assert (keep[:, 0] < keep[:, 1]).all()
    counts = torch.bincount(keep.reshape(-1), minlength=8)
    assert (counts - 500).abs().max() < 80  # four standard deviations


def test_the_same_generator_state_gives_the_same_tokens() -> None:
    draws = [random_visible(3, 16, 4, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.01, 0.99, -1.0, 2.0])
def test_a_ratio_that_masks_nothing_or_everything_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="mask_ratio"):
        build(ratio)
