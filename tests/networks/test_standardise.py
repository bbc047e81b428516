from __future__ import annotations

import torch

from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.standardise import standardise_patches, standardise_readout
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings


def scattered(network: torch.nn.Module) -> torch.nn.Module:
    """Move every weight away from its special initial value, as training does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def convvit() -> ConvViT:
    torch.manual_seed(0)
    sizes = {"image_size": (16, 8, 2), "patch_size": (2, 2, 1), "scale_factor": (2, 2, 1), "conv_chans": (3, 4)}
    network = ConvViT(
        **sizes, n_frames=2, out_chans=3, conv_n_blocks=1, embed_dim=12, depth=2, n_heads=2, readout="cls_patch"
    )
    return scattered(network)


def read(network: ConvViT, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the patch head and the class head read, and the fused tokens, from the network's own readout."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        network.pred_head_dict[name].register_forward_pre_hook(
            lambda _, given, name=name: seen.update({name: given[0]})
        )
        for name in ("sax", "cls")
    ]
    features: Features = network.prefix(images, 2)
    network.readout(features)
    for hook in hooks:
        hook.remove()
    tokens = network.encoder.norm(features.tokens)
    return seen["sax"], seen["cls"], network.fusion(tokens[:, 1:], features.addend)


@torch.no_grad()
def test_both_readouts_of_a_convvit_are_standardised_and_otherwise_as_before() -> None:
    network = convvit()
    images = torch.rand(40, 2, 16, 8, 2, generator=torch.Generator().manual_seed(1))
    patch, token, fused = read(network, images)
    deviation = patch.std(dim=0, correction=0)
    deviation = deviation.clamp(min=0.1 * float(deviation.mean()))
    standardise_readout(network, images.split(16))
    new_patch, new_token, new_fused = read(network, images)
    torch.testing.assert_close(new_patch, (patch - patch.mean(dim=0)) / deviation, rtol=0, atol=2e-3)
    centred = token - token.mean(dim=0)
    torch.testing.assert_close(new_token, centred / centred.square().mean().sqrt(), rtol=0, atol=1e-4)
    torch.testing.assert_close(new_fused, (fused - patch.mean(dim=0)) / deviation, rtol=0, atol=2e-3)


@torch.no_grad()
def test_only_the_mean_patch_token_is_standardised_where_a_decoder_reads_the_same_tokens() -> None:
    network = convvit()
    images = torch.rand(40, 2, 16, 8, 2, generator=torch.Generator().manual_seed(1))
    patch, token, _ = read(network, images)
    tokens = network.encoder.norm(network.prefix(images, 2).tokens)
    deviation = patch.std(dim=0, correction=0)
    deviation = deviation.clamp(min=0.1 * float(deviation.mean()))
    standardise_patches(network, images.split(16))
    new_patch, new_token, _ = read(network, images)
    torch.testing.assert_close(new_patch, (patch - patch.mean(dim=0)) / deviation, rtol=0, atol=1e-4)
    assert torch.equal(new_token, token)
    assert torch.equal(network.encoder.norm(network.prefix(images, 2).tokens), tokens)


@torch.no_grad()
def test_the_pooled_feature_of_a_vision_transformer_has_mean_zero_and_deviation_one() -> None:
    torch.manual_seed(0)
    settings = ViTSettings(image_size=(16, 16), patch=8, dim=12, depth=1, n_heads=2)
    network = scattered(VisionTransformer(settings, out_chans=2))
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    standardise_readout(network, images.split(16))
    pooled = network.pool(network.prefix(images, 1))
    torch.testing.assert_close(pooled.mean(dim=0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(pooled.std(dim=0, correction=0), torch.ones(12), rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_channel_that_hardly_varies_is_not_blown_up() -> None:
    torch.manual_seed(0)
    settings = ViTSettings(image_size=(16, 16), patch=8, dim=12, depth=1, n_heads=2)
    network = scattered(VisionTransformer(settings, out_chans=2))
    network.norm.weight[0] = 1e-6
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    standardise_readout(network, [images])
    assert network.pool(network.prefix(images, 1))[:, 0].abs().max() < 1e-2


def test_the_mode_is_kept() -> None:
    network = convvit().train()
    standardise_readout(network, [torch.rand(4, 2, 16, 8, 2)])
    assert network.training
