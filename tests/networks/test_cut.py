"""Cutting a network, and leaving out of its last block what its readout does not read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from monai_fedlora.networks.backbone import Taps
from monai_fedlora.networks.catalogue import Network, architecture
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings

CONVVIT: dict[str, Any] = {
    "image_size": (16, 16, 2),
    "n_frames": 2,
    "patch_size": (2, 2, 1),
    "scale_factor": (2, 2, 1),
    "conv_chans": (4,),
    "conv_n_blocks": 1,
    "embed_dim": 12,
    "depth": 3,
    "n_heads": 2,
}
VIT = ViTSettings(image_size=(32, 32), patch=8, dim=24, depth=3, n_heads=2)


def convvit(readout: Any) -> tuple[Network, torch.Tensor]:
    return ConvViT(**CONVVIT, out_chans=3, readout=readout), torch.randn(2, 2, 16, 16, 2)


def vit(**changes: Any) -> tuple[Network, torch.Tensor]:
    return VisionTransformer(replace(VIT, **changes), out_chans=3), torch.randn(2, 3, 32, 32)


NETWORKS = {
    "vit": lambda: vit(),
    "dinov2": lambda: vit(layer_scale=True),
    "dinov2_registers": lambda: vit(layer_scale=True, registers=2),
    "siglip": lambda: vit(class_token=False, readout="map", activation="gelu_tanh"),
    "dinov3": lambda: vit(positions="rotary", registers=2, key_bias=False, gated=True),
    "clip": lambda: vit(pre_norm=True, activation="quick_gelu", patch_bias=False),
    "mae": lambda: vit(readout="mean"),
    "convvit": lambda: convvit("cls_patch"),
    "convvit_cls": lambda: convvit("cls"),
    "convvit_patch": lambda: convvit("patch"),
}


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Network, torch.Tensor]:
    torch.manual_seed(0)
    network, images = NETWORKS[request.param]()
    return network.double(), images.double()


def whole_blocks(network: Network, images: torch.Tensor) -> list[torch.Tensor]:
    """The input of every block and the output of the last, every token computed."""
    tokens = [network.embed(images).tokens]
    for block in network.blocks:
        tokens.append(block(tokens[-1]))
    return tokens


def test_what_the_readout_does_not_read_changes_neither_logits_nor_gradients(case: tuple) -> None:
    network, images = case
    features = network.embed(images)
    expected = network.readout(features._replace(tokens=whole_blocks(network, images)[-1]))
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), list(network.parameters()), allow_unused=True)
    logits = network(images)
    found = torch.autograd.grad((logits * weights).sum(), list(network.parameters()), allow_unused=True)
    torch.testing.assert_close(logits, expected)
    for (name, _), gradient, other in zip(network.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(gradient, other, msg=name)


def test_two_parts_equal_the_whole_at_every_cut(case: tuple) -> None:
    network, images = case
    for block in range(len(network.blocks) + 1):
        torch.testing.assert_close(network.suffix(network.prefix(images, block), block), network(images))


def test_a_class_token_readout_keeps_no_other_token_behind_the_last_block(case: tuple) -> None:
    network, images = case
    whole = whole_blocks(network, images)[-1]
    last = network.prefix(images, len(network.blocks)).tokens
    assert last.shape[1] == (1 if network.reads_class_token_alone else whole.shape[1])
    torch.testing.assert_close(last, whole[:, : last.shape[1]])


def test_taps_are_the_inputs_of_all_blocks_and_carry_no_graph(case: tuple) -> None:
    network, images = case
    taps = network.taps(images)
    expected = whole_blocks(network, images)
    assert len(taps.hidden) == len(network.blocks)
    for hidden, tokens in zip(taps.hidden, expected[:-1], strict=True):
        assert hidden.grad_fn is None
        torch.testing.assert_close(hidden, tokens)
    torch.testing.assert_close(taps.addend, network.embed(images).addend)


def test_a_module_beside_the_blocks_computes_the_logits(case: tuple) -> None:
    network, images = case

    class Beside(nn.Module):
        def forward(self, beside: Network, taps: Taps) -> torch.Tensor:
            assert beside is network
            return torch.stack([hidden.mean((1, 2)) for hidden in taps.hidden], dim=1)

    keys = set(network.state_dict())
    network.side = Beside()
    torch.testing.assert_close(network(images)[:, 0], network.embed(images).tokens.mean((1, 2)))
    assert set(network.state_dict()) == keys


@pytest.mark.parametrize("name", ["vit_base_16", "dinov2_small_14", "clip_base_16"])
def test_published_class_token_families_leave_out_the_rest(name: str) -> None:
    shape = architecture(name).shape
    assert isinstance(shape, ViTSettings)
    small = replace(shape, image_size=(2 * shape.patch, 2 * shape.patch), dim=12, n_heads=2, depth=2)
    assert VisionTransformer(small, out_chans=2).reads_class_token_alone
