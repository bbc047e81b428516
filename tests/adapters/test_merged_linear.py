"""Folded adapters against PEFT's own forward and backward."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import Linear
from torch import nn

from monai_fedlora.adapters.active_adapters import with_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, add_adapters
from monai_fedlora.adapters.merged_linear import merged_linear

WIDE, NARROW = 12, 7


def adapted(*adapters: str, dropout: float = 0.0, bias: bool = True) -> nn.Module:
    """A module with the adapted layer ``down``, every weight of which trains."""
    torch.manual_seed(0)
    network = nn.ModuleDict({"down": nn.Linear(WIDE, NARROW, bias=bias)})
    add_adapters(network, ["down"], LoraSettings(rank=2, alpha=6.0, dropout=dropout), adapters)
    network.requires_grad_(True)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    return network.double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", [{}, {PRIVATE: 0.0}, {PRIVATE: 0.5, SHARED: 2.0}])
def test_output_and_gradients_are_those_of_peft(weights: dict[str, float], bias: bool) -> None:
    network = adapted(SHARED, PRIVATE, bias=bias)
    x = torch.randn(3, 5, WIDE, dtype=torch.float64, requires_grad=True)
    leaves = [x, *network.parameters()]
    with with_weights(network, weights):
        expected, found = Linear.forward(network["down"], x), merged_linear(network["down"], x)
        torch.testing.assert_close(found, expected)
        cotangent = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, leaves, cotangent)
        for gradient, other in zip(torch.autograd.grad(found, leaves, cotangent), wanted, strict=True):
            torch.testing.assert_close(gradient, other)


def test_a_plain_layer_is_itself() -> None:
    layer, x = nn.Linear(WIDE, NARROW), torch.randn(2, WIDE)
    assert torch.equal(merged_linear(layer, x), layer(x))


def test_dropout_falls_on_the_adapters_input_alone() -> None:
    layer = adapted(PRIVATE, dropout=0.5)["down"]
    x = torch.randn(4, WIDE, dtype=torch.float64)
    torch.manual_seed(1)
    expected = layer(x)
    torch.manual_seed(1)
    assert torch.equal(merged_linear(layer, x), expected)
    assert not torch.allclose(merged_linear(layer, x), expected)


def test_adapters_that_are_switched_off_have_no_effect() -> None:
    layer = adapted(PRIVATE)["down"]
    x = torch.randn(4, WIDE, dtype=torch.float64)
    layer.enable_adapters(False)
    assert torch.equal(merged_linear(layer, x), layer.get_base_layer()(x))


def test_merged_adapters_count_once() -> None:
    layer = adapted(PRIVATE)["down"]
    x = torch.randn(4, WIDE, dtype=torch.float64)
    expected = layer(x)
    layer.merge()
    torch.testing.assert_close(merged_linear(layer, x), expected)
