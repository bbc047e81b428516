"""Rotary positions against their definition, token by token and pair by pair of channels."""

from __future__ import annotations

import math

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.mae import MaskedAutoencoder
from monai_fedlora.networks.rotary import Rotary
from monai_fedlora.networks.vit import VisionTransformer
from tests.networks.published import images, network_of

ROTARY = {"positions": "rotary", "registers": 2, "key_bias": False, "layer_scale": True, "n_heads": 2}


def by_definition(part: torch.Tensor, *, grid: tuple[int, int], n_prefix: int) -> torch.Tensor:
    """Each pair (low, high) of channels of a patch as a complex number, turned by its angle."""
    height, width = grid
    dim = part.shape[3]
    out = part.clone().double()
    for index in range(height * width):
        y = 2 * (index // width + 0.5) / height - 1
        x = 2 * (index % width + 0.5) / width - 1
        for channel in range(dim // 2):
            place, number = (y, channel) if channel < dim // 4 else (x, channel - dim // 4)
            angle = 2 * math.pi * place * 100 ** (-4 * number / dim)
            low, high = (part[:, :, n_prefix + index, at].double() for at in (channel, channel + dim // 2))
            turned = torch.complex(low, high) * complex(math.cos(angle), math.sin(angle))
            out[:, :, n_prefix + index, channel] = turned.real
            out[:, :, n_prefix + index, channel + dim // 2] = turned.imag
    return out.float()


@pytest.mark.parametrize(("grid", "n_prefix"), [((2, 3), 5), ((4, 1), 0)])
def test_patches_turn_by_their_places_and_the_tokens_before_them_stay(grid: tuple[int, int], n_prefix: int) -> None:
    part = torch.randn(2, 3, n_prefix + math.prod(grid), 8, generator=torch.Generator().manual_seed(0))
    rotary = Rotary(grid=grid, n_prefix=n_prefix, head_dim=8)
    torch.testing.assert_close(rotary(part), by_definition(part, grid=grid, n_prefix=n_prefix), rtol=1e-5, atol=1e-6)
    first = max(n_prefix, 1)
    torch.testing.assert_close(rotary(part[:, :, :first]), rotary(part)[:, :, :first], rtol=0, atol=0)
    torch.testing.assert_close(rotary(part)[:, :, :n_prefix], part[:, :, :n_prefix], rtol=0, atol=0)
    assert rotary(part.bfloat16()).dtype == torch.bfloat16 and rotary.state_dict() == {}


def test_a_head_that_cannot_turn_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4, not 6"):
        Rotary(grid=(2, 2), n_prefix=1, head_dim=6)


def test_a_network_with_rotary_positions_can_be_cut_at_every_block() -> None:
    network, x = network_of(**ROTARY), images()
    with torch.no_grad():
        whole = network(x)
        for block in range(len(network.blocks) + 1):
            torch.testing.assert_close(network.suffix(network.prefix(x, block), block), whole, rtol=0, atol=0)
        tokens = network.prefix(x, 1).tokens
        torch.testing.assert_close(network.blocks[1](tokens, 3), network.blocks[1](tokens)[:, :3])


def test_moving_the_patches_changes_what_it_says_and_its_state_holds_no_positions() -> None:
    network, x = network_of(**ROTARY), images()
    with torch.no_grad():
        assert not torch.allclose(network(x), network(x.flip(3)), atol=1e-4)
        for block in network.blocks:
            block.attn.rotary = None
        patches = x.unfold(2, 8, 8).unfold(3, 8, 8)
        moved = patches.flip(3).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)
        torch.testing.assert_close(network(x), network(moved))
    assert not any("position" in key or "rotary" in key for key in network.state_dict())
    assert network.blocks[0].attn.k.bias is None and network.blocks[0].attn.q.bias is not None


def test_images_of_another_size_and_parts_of_images_are_refused() -> None:
    network: VisionTransformer = network_of(**ROTARY)
    with pytest.raises(ConfigError, match=r"2 x 8 patches, and the rotary positions are of 4 x 4; build .*NAME-PIXELS"):
        network(torch.zeros(1, 3, 16, 64))
    masked = MaskedAutoencoder(network, decoder_dim=8, decoder_heads=2)
    with pytest.raises(ConfigError, match=r"7 tokens came, .* of 3 tokens and all 4 x 4 patches"):
        masked(images(), torch.arange(4).expand(2, -1))


@pytest.mark.slow
def test_an_exported_program_checks_no_types() -> None:
    network, x = network_of(**ROTARY), images()
    program = torch.export.export(network, (x,))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("assert" in name for name in called)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
