"""Two heads in the place of one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from monai_fedlora.adapters.active_adapters import set_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED, merge_lora
from monai_fedlora.adapters.twin_head import TwinHead, attach_twin_heads
from tests.helpers import randomise, tiny_images, tiny_network, tiny_photographs, tiny_vit


def test_every_head_of_a_backbone_is_twinned_and_nothing_else() -> None:
    for network, heads in ((tiny_network(), {"pred_head_dict.sax", "pred_head_dict.cls"}), (tiny_vit(), {"head"})):
        plain = set(network.state_dict())
        attach_twin_heads(network)
        assert {name for name, module in network.named_modules() if isinstance(module, TwinHead)} == heads
        keys = set(network.state_dict())
        assert keys - plain == {f"{h}.{b}.{w}" for h in heads for b in (SHARED, PRIVATE) for w in ("weight", "bias")}
        assert all(key.startswith(network.head_prefixes) for key in keys - plain)


@torch.no_grad()
def test_the_branches_start_equal_and_apart() -> None:
    network = tiny_network()
    expected = network(tiny_images())
    attach_twin_heads(network)
    assert torch.equal(network(tiny_images()), expected)
    set_weights(network, {SHARED: 0.0, PRIVATE: 1.0})
    assert torch.equal(network(tiny_images()), expected)
    network.pred_head_dict["sax"].private.weight.add_(1.0)
    assert not torch.equal(network(tiny_images()), expected)
    set_weights(network, {SHARED: 1.0, PRIVATE: 0.0})
    assert torch.equal(network(tiny_images()), expected)


@pytest.mark.parametrize(("on", "off"), [(SHARED, PRIVATE), (PRIVATE, SHARED)])
def test_a_branch_without_weight_has_a_gradient_of_zero(on: str, off: str) -> None:
    """Not none at all, which processes that train together would wait for in vain."""
    head = TwinHead(nn.Linear(4, 2))
    head.weights = {on: 1.0, off: 0.0}
    head(torch.ones(3, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in getattr(head, on).parameters())
    assert all(p.grad is not None and not p.grad.any() for p in getattr(head, off).parameters())


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_a_merged_head_is_a_plain_one(bias: bool) -> None:
    head = TwinHead(nn.Linear(4, 2, bias=bias))
    randomise(head, "private")
    head.weights = {SHARED: 0.3, PRIVATE: 0.7}
    plain, x = head.plain(), torch.randn(5, 4)
    assert type(plain) is nn.Linear
    assert (plain.bias is not None) == bias
    torch.testing.assert_close(plain(x), head(x))
    before = copy.deepcopy(head.state_dict())
    plain.weight.zero_()
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


@torch.no_grad()
def test_a_network_with_twin_heads_alone_can_be_merged() -> None:
    network = tiny_vit()
    attach_twin_heads(network)
    randomise(network, "head.private")
    set_weights(network, {SHARED: 0.0, PRIVATE: 1.0})
    expected = network(tiny_photographs())
    plain = tiny_vit(seed=3)
    plain.load_state_dict(merge_lora(network).state_dict())
    torch.testing.assert_close(plain(tiny_photographs()), expected, rtol=1e-6, atol=1e-6)
