from __future__ import annotations

import math

import pytest
import torch

from monai_fedlora.networks.photo_supervision import PhotoSupervision, mask_loss
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings


@pytest.fixture
def network() -> PhotoSupervision:
    torch.manual_seed(0)
    backbone = VisionTransformer(ViTSettings(image_size=(16, 16), patch=8, dim=8, depth=2, n_heads=2), out_chans=1)
    return PhotoSupervision(
        backbone, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1), amounts=2, numbers=3, signs=4, classes=5, lesions=3
    )


def batch(label: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    image, maps = torch.rand(2, 3, 16, 16, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)
    return image, maps, torch.ones(2, 3), torch.ones(2, 4), torch.full((2,), label)


def test_mask_loss_is_the_entropy_and_the_missing_dice() -> None:
    shares = (torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    size, n = float(shares.sum()), 2 * 16
    assert float(mask_loss(torch.zeros(2, 1, 4, 4), shares)) == pytest.approx(math.log(2) + 1 - size / (n / 2 + size))
    assert float(mask_loss(shares * 200 - 100, shares)) == pytest.approx(0, abs=1e-5)


def test_everything_but_the_backbones_head_learns(network: PhotoSupervision) -> None:
    network(*batch()).backward()
    idle = {key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    keys = {"backbone.blocks.0.attn.k.bias", "backbone.blocks.1.attn.k.bias"}  # softmax does not see them
    assert idle - keys == {key for key, _ in network.named_parameters() if key.startswith("backbone.head.")}


def test_a_retina_teaches_neither_numbers_nor_signs(network: PhotoSupervision) -> None:
    network(*batch(label=3))
    assert not network.parts["numbers"].any() and not network.parts["signs"].any() and network.parts["class"].any()


def test_the_head_reads_what_a_classifier_reads(network: PhotoSupervision) -> None:
    image = batch()[0]
    _, pooled = network.eval().read(image)
    mean, std = torch.tensor([0.5, 0.4, 0.3])[:, None, None], torch.tensor([0.5, 0.2, 0.1])[:, None, None]
    torch.testing.assert_close(network.backbone.head(pooled), network.backbone((image - mean) / std))


def test_pixels_and_means_are_those_of_their_token(network: PhotoSupervision) -> None:
    """The second token is the upper right one: its logits and means lie in these rows and columns."""
    tokens = torch.zeros(1, 4, 8)
    tokens[0, 1] = 1
    bare = network.mask(torch.zeros(1, 4, 8), (16, 16))
    changed = (network.mask(tokens, (16, 16)) != bare)[0, 0]
    assert changed[:8, 8:].all() and changed.sum() == 64
    ahead = network.pixels(tokens)[0, 1].view(8, 8)
    torch.testing.assert_close(network.mask(tokens, (16, 16))[0, 0, :8, 8:], ahead)
    maps = batch()[1]
    torch.testing.assert_close(network._token_means(maps)[:, 1], maps[:, :, :8, 8:].mean((2, 3)))


def test_the_state_is_that_of_a_backbone_without_head(network: PhotoSupervision) -> None:
    missing = network.backbone.load_state_dict(network.backbone_state(), strict=False).missing_keys
    assert missing == ["head.weight", "head.bias"]
