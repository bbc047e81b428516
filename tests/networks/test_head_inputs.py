"""What the heads read: the vectors that a head maps to the logits, for every family."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.adapters.side import SideSettings, attach_side
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.networks.head_inputs import head_inputs, joined

SHAPES = {"small": (2, 48, 48, 8), "vit_demo": (3, 64, 64)}


@pytest.mark.parametrize("size", SHAPES)
def test_the_heads_of_what_they_read_are_the_logits(size: str) -> None:
    network = build_backbone(size, out_chans=3).eval()
    with torch.no_grad(), head_inputs(network) as inputs:
        logits = network(torch.rand(2, *SHAPES[size]))
        found = dict(inputs)
    heads = [network.get_submodule(name.removesuffix("."))(value) for name, value in sorted(found.items())]
    torch.testing.assert_close(sum(heads) / len(heads), logits)
    assert joined(found).shape == (2, 96 * len(heads))
    assert torch.equal(joined(found)[:, :96], found[sorted(found)[0]])


def test_of_a_vision_transformer_it_is_the_pooled_token() -> None:
    network = build_backbone("vit_demo", out_chans=3).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad(), head_inputs(network) as inputs:
        network(image)
        assert torch.equal(joined(inputs), network.pool(network.prefix(image, len(network.blocks))))


def test_a_side_network_is_part_of_it() -> None:
    network = build_backbone("vit_demo", out_chans=3).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), head_inputs(network) as inputs:
        network(image)
        before = joined(inputs)
        attach_side(network, SideSettings())
        network(image)
        torch.testing.assert_close(joined(inputs), before)
        torch.nn.init.normal_(network.side.up.weight)  # type: ignore[union-attr]
        network(image)
        assert not torch.allclose(joined(inputs), before)


def test_nothing_is_kept_afterwards() -> None:
    network = build_backbone("vit_demo", out_chans=3)
    with head_inputs(network) as inputs:
        pass
    network(torch.rand(1, 3, 64, 64))
    assert inputs == {}
    assert not any(module._forward_pre_hooks for module in network.modules())
