from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.mae import MaskedAutoencoder, random_visible
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings


@dataclass(frozen=True)
class Kind:
    """A family of backbones whose test network has 16 tokens."""

    build: Callable[[], ConvViT | VisionTransformer]
    shape: tuple[int, ...]
    token: Callable[[int], tuple[slice, ...]]
    head: str


def convvit() -> ConvViT:
    return ConvViT(
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


def vit() -> VisionTransformer:
    settings = ViTSettings(image_size=(8, 32), patch=4, dim=12, depth=2, n_heads=2)
    return VisionTransformer(settings, out_chans=2)


def voxels(token: int) -> tuple[slice, ...]:
    """The voxels of a token in every frame; the grid is (4, 2, 2) in x, y, z order and a token spans (4, 4, 1)."""
    x, y, z = token // 4, token // 2 % 2, token % 2
    return slice(None), slice(4 * x, 4 * x + 4), slice(4 * y, 4 * y + 4), slice(z, z + 1)


def pixels(token: int) -> tuple[slice, ...]:
    """The pixels of a token in every channel; the grid has 2 rows of 8 and a token spans (4, 4)."""
    row, column = divmod(token, 8)
    return slice(None), slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)


KINDS = {
    "convvit": Kind(convvit, (2, 16, 8, 2), voxels, "pred_head_dict"),
    "vit": Kind(vit, (3, 8, 32), pixels, "head"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def build(kind: Kind, mask_ratio: float = 0.75) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(kind.build(), mask_ratio=mask_ratio, decoder_dim=12, decoder_depth=1, decoder_heads=2)


def images(kind: Kind, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, *kind.shape, generator=torch.Generator().manual_seed(1))


def test_masked_pixels_are_never_seen(kind: Kind) -> None:
    network, x = build(kind), images(kind, 1)
    keep = torch.tensor([[0, 5, 6, 15]])
    before = network.reconstruct(x, keep)
    for token in set(range(16)) - set(keep[0].tolist()):
        x[0][kind.token(token)] = 100.0
    torch.testing.assert_close(network.reconstruct(x, keep), before, rtol=0, atol=0)


@pytest.mark.parametrize("token", [0, 5, 6, 15])
def test_every_visible_token_is_seen(kind: Kind, token: int) -> None:
    network, x = build(kind), images(kind, 1)
    keep = torch.tensor([[0, 5, 6, 15]])
    before = network.reconstruct(x, keep)
    x[0][kind.token(token)] += torch.rand_like(x[0][kind.token(token)])
    assert (network.reconstruct(x, keep) - before).abs().max() > 1e-4


def test_the_loss_is_the_error_on_normalised_masked_patches(kind: Kind) -> None:
    network, x = build(kind), images(kind)
    keep = torch.tensor([[0, 5, 6, 15], [1, 2, 3, 4]])
    predicted = network.reconstruct(x, keep)
    errors = []
    for image in range(2):
        for token in set(range(16)) - set(keep[image].tolist()):
            patch = x[image][kind.token(token)].movedim(0, -1).reshape(-1)  # the channel is fastest
            patch = (patch - patch.mean()) / torch.sqrt(patch.var() + 1e-2)
            errors.append(((predicted[image, token] - patch) ** 2).mean())
    torch.testing.assert_close(network(x, keep), torch.stack(errors).mean())


def test_all_of_the_backbone_but_its_heads_is_trained(kind: Kind) -> None:
    network = build(kind)
    network(images(kind), random_visible(2, 16, 4)).backward()
    for key, parameter in network.named_parameters():
        assert (parameter.grad is None) == key.startswith(f"backbone.{kind.head}."), key


def test_visible_tokens_are_distinct_sorted_and_uniform() -> None:
    keep = random_visible(2000, 8, 2, torch.Generator().manual_seed(0))
    assert (keep[:, 0] < keep[:, 1]).all()
    counts = torch.bincount(keep.reshape(-1), minlength=8)
    assert (counts - 500).abs().max() < 80  # four standard deviations


def test_the_same_generator_state_gives_the_same_tokens() -> None:
    draws = [random_visible(3, 16, 4, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.01, 0.99, -1.0, 2.0])
def test_a_ratio_that_masks_nothing_or_everything_is_refused(kind: Kind, ratio: float) -> None:
    with pytest.raises(ConfigError, match="mask_ratio"):
        build(kind, ratio)


def test_tokens_that_differ_in_one_coordinate_only_share_half_of_their_decoder_position() -> None:
    position = build(KINDS["vit"]).decoder_position.reshape(2, 8, 12)
    torch.testing.assert_close(position[:, :1, 6:].expand(-1, 8, -1), position[..., 6:], rtol=0, atol=0)
    torch.testing.assert_close(position[:1, :, :6].expand(2, -1, -1), position[..., :6], rtol=0, atol=0)
    assert len(position.reshape(16, 12).unique(dim=0)) == 16
