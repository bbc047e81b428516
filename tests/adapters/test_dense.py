"""A dense update beside a frozen weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_fedlora.adapters.dense import ShiftedLinear, shift_layers
from monai_fedlora.adapters.lora import SHARED, LoraSettings, add_adapters, lora_layers, merge_lora
from tests.helpers import randomise, tiny_photographs, tiny_vit

LAYER = "blocks.2.attn.q"


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_a_shifted_layer_adds_its_update(bias: bool) -> None:
    layer, x = nn.Linear(5, 3, bias=bias), torch.randn(7, 5)
    shifted = ShiftedLinear(layer)
    assert torch.equal(shifted(x), layer(x))
    shifted.lora_delta.copy_(torch.randn(3, 5))
    expected = layer(x) + x @ shifted.lora_delta.T
    torch.testing.assert_close(shifted(x), expected)
    plain = shifted.plain()
    assert type(plain) is nn.Linear
    torch.testing.assert_close(plain(x), expected)


def test_an_update_is_stored_and_does_not_train() -> None:
    shifted = ShiftedLinear(nn.Linear(5, 3))
    assert set(shifted.state_dict()) == {"weight", "bias", "lora_delta"}
    assert {name for name, _ in shifted.named_parameters()} == {"weight", "bias"}
    shifted(torch.randn(2, 5, requires_grad=True)).sum().backward()
    assert shifted.lora_delta.grad is None


@torch.no_grad()
def test_an_adapter_fits_on_a_shifted_layer_and_both_are_merged() -> None:
    network = tiny_vit()
    shift_layers(network, [LAYER])
    add_adapters(network, [LAYER], LoraSettings(rank=3), (SHARED,))
    randomise(network, "lora_")
    layer = lora_layers(network)[LAYER]
    layer.base_layer.lora_delta.copy_(0.3 * torch.randn(24, 24, generator=torch.Generator().manual_seed(0)))
    a, b = layer.lora_A[SHARED].weight, layer.lora_B[SHARED].weight
    expected_weight = tiny_vit().get_parameter(f"{LAYER}.weight") + layer.base_layer.lora_delta + 16 / 3 * b @ a
    expected = network(tiny_photographs())
    assert f"{LAYER}.base_layer.lora_delta" in network.state_dict()
    merged = merge_lora(network)
    torch.testing.assert_close(merged.get_parameter(f"{LAYER}.weight"), expected_weight)
    torch.testing.assert_close(merged(tiny_photographs()), expected, rtol=1e-5, atol=1e-5)
    assert list(merged.state_dict()) == list(tiny_vit().state_dict())
    assert [type(module) for module in merged.modules()] == [type(module) for module in tiny_vit().modules()]


def test_a_shifted_network_needs_no_memory_on_the_meta_device() -> None:
    with torch.device("meta"):
        network = tiny_vit()
        shift_layers(network, [LAYER])
    assert network.get_buffer(f"{LAYER}.lora_delta").is_meta
