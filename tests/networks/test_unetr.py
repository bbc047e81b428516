"""The vision transformer with a convolutional decoder, cut before any of its blocks."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.unetr import ViTUNETR, strides
from monai_fedlora.networks.vit import ViTSettings


def build(patch: int = 8, depth: int = 4) -> ViTUNETR:
    torch.manual_seed(0)
    settings = ViTSettings(image_size=(2 * patch, 3 * patch), patch=patch, dim=16, depth=depth, n_heads=2)
    return ViTUNETR(settings, out_chans=3, width=2).eval()


@pytest.mark.parametrize("patch", [4, 8, 14])
@torch.no_grad()
def test_prefix_then_suffix_is_the_network_before_every_block(patch: int) -> None:
    network = build(patch)
    assert is_backbone(network)
    x = torch.rand(2, 3, 2 * patch, 3 * patch)
    logits = network(x)
    assert logits.shape == (2, 1, 3, 2 * patch, 3 * patch)
    for block in range(5):
        assert torch.equal(network.suffix(network.prefix(x, block), block), logits)


@torch.no_grad()
def test_the_decoder_reads_hidden_states_of_evenly_spaced_blocks() -> None:
    network = build(16, depth=12)
    assert network.read == (3, 6, 9)
    seen = []
    network.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    x = torch.rand(1, 3, 32, 48)
    network(x)
    taps = network.taps(x)
    for state, number in zip(seen[0], (9, 6, 3), strict=True):
        torch.testing.assert_close(state.flatten(2).transpose(1, 2), taps.hidden[number][:, 1:])


@pytest.mark.parametrize(("patch", "steps"), [(16, (2, 2, 2, 2)), (8, (2, 2, 2)), (14, (7, 2)), (32, (2,) * 5)])
def test_steps_multiply_to_the_patch(patch: int, steps: tuple[int, ...]) -> None:
    assert strides(patch) == steps
