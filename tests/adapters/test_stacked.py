"""Adapters in one product: PEFT's numbers and gradients, and PEFT itself where the layer is no plain sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from peft.functional import set_adapter
from peft.tuners.lora import Linear
from torch import Tensor, nn

from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, add_adapters
from monai_fedlora.adapters.stacked import StackedLora

ADAPTERS = (SHARED, PRIVATE)


def adapted(adapters: Sequence[str] = ADAPTERS, bias: bool = True, **settings: Any) -> StackedLora:
    """A trained layer in float64."""
    torch.manual_seed(1)
    network = nn.ModuleDict({"q": nn.Linear(6, 5, bias=bias)})
    add_adapters(network, ["q"], LoraSettings(rank=2, **settings), adapters)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    layer = network.double()["q"]
    assert type(layer) is StackedLora
    return layer


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def outcome(layer: StackedLora, forward: Callable[..., Tensor], x: Tensor) -> list[Tensor]:
    """Output and all gradients; dropout draws the same."""
    torch.manual_seed(3)
    leaves = [x.clone().requires_grad_(), *(p for p in layer.parameters() if p.requires_grad)]
    output = forward(layer, leaves[0])
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad((output * weights).sum(), leaves)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3), (0,), (2, 0, 3)])
@pytest.mark.parametrize("adapters", [(SHARED,), ADAPTERS, (*ADAPTERS, "third")])
@pytest.mark.parametrize("more", [{}, {"bias": False}, {"dropout": 0.5}])
def test_numbers_and_gradients_are_pefts(
    shape: tuple[int, ...], adapters: tuple[str, ...], more: dict[str, Any]
) -> None:
    layer = adapted(adapters, **more)
    found, expected = (outcome(layer, forward, images(*shape)) for forward in (StackedLora.forward, Linear.forward))
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0.5, 32)), min_size=1, max_size=3))
def test_ranks_and_scales_may_differ(kinds: list[tuple[int, float]]) -> None:
    network = nn.ModuleDict({"q": nn.Linear(6, 5)})
    for number, (rank, alpha) in enumerate(kinds):
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q"])  # type: ignore[arg-type]
        config._register_custom_module({nn.Linear: StackedLora})
        inject_adapter_in_model(config, network, str(number))
    set_adapter(network, [str(number) for number in range(len(kinds))])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    layer = network.double()["q"]
    found, expected = (outcome(layer, forward, images(4)) for forward in (StackedLora.forward, Linear.forward))
    torch.testing.assert_close(found, expected)


def test_an_untrained_adapter_leaves_the_layers_bits() -> None:
    layer = adapted()
    for adapter in ADAPTERS:
        nn.init.zeros_(layer.lora_B[adapter].weight)
    assert torch.equal(layer(images(3)), layer.get_base_layer()(images(3)))


@pytest.mark.parametrize("active", [SHARED, PRIVATE])
def test_only_active_adapters_count(active: str) -> None:
    layer = adapted()
    layer.set_adapter(active)
    torch.testing.assert_close(layer(images(3)), Linear.forward(layer, images(3)))
    assert not torch.allclose(layer(images(3)), layer.get_base_layer()(images(3)))


def _merge(layer: Any) -> None:
    layer.merge()


def _switch_off(layer: Any) -> None:
    layer.enable_adapters(False)


@pytest.mark.parametrize("change", [_merge, _switch_off])
def test_merged_and_switched_off_adapters_are_pefts(change: Callable[[Any], None]) -> None:
    layer, x = adapted(), images(3)
    before = layer(x)
    change(layer)
    torch.testing.assert_close(layer(x), before if change is _merge else layer.get_base_layer()(x))


def test_the_input_stays_as_it_is() -> None:
    layer, x = adapted(), images(3)
    layer(x)
    assert torch.equal(x, images(3))


def test_autocast_gives_pefts_numbers_to_the_types_precision() -> None:
    layer, x = adapted().float(), images(40).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = layer(x), Linear.forward(layer, x)
    assert found.dtype == expected.dtype == torch.bfloat16
    exact = layer(x)
    errors = [(output.float() - exact).norm() / exact.norm() for output in (found, expected)]
    assert errors[0] < 0.01
    assert all(one < 1.5 * other for one, other in pairwise(errors))


def test_a_hook_on_a_factor_sees_its_codes() -> None:
    layer, seen = adapted(), []
    layer.lora_A[PRIVATE].register_forward_hook(lambda module, inputs, output: seen.append(output))
    layer(images(3))
    assert torch.equal(*seen, images(3) @ layer.lora_A[PRIVATE].weight.T)
