"""Factors that are drawn, zeroed or cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_fedlora.adapters.factors import draw_a, freeze_a, truncate, zero_b
from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, attach_lora, lora_layers
from tests.helpers import randomise, tiny_photographs, tiny_vit


def adapted(seed: int = 0, rank: int = 6) -> Any:
    network = tiny_vit()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        attach_lora(network, LoraSettings(rank=rank), (SHARED, PRIVATE))
    randomise(network, "lora_B")
    return network


def factor(network: Any, which: str, adapter: str = SHARED) -> list[torch.Tensor]:
    return [getattr(layer, f"lora_{which}")[adapter].weight.detach() for layer in lora_layers(network).values()]


def test_drawn_values_follow_from_the_seed_and_the_layer_alone() -> None:
    one, other, third = adapted(0), adapted(1), adapted(0)
    torch.manual_seed(5)
    draw_a(one, SHARED, seed="7")
    torch.manual_seed(6)
    draw_a(other, SHARED, seed="7")
    draw_a(third, SHARED, seed="8")
    assert all(torch.equal(a, b) for a, b in zip(factor(one, "A"), factor(other, "A"), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(factor(one, "A"), factor(third, "A"), strict=True))
    layers = factor(one, "A")
    assert not any(torch.equal(layers[0], layer) for layer in layers[1:])


def test_drawing_leaves_the_other_adapter_b_and_the_random_state_alone() -> None:
    network, before = adapted(), adapted()
    state = torch.get_rng_state()
    draw_a(network, SHARED, seed="7")
    assert torch.equal(torch.get_rng_state(), state)
    for which, adapter in (("A", PRIVATE), ("B", PRIVATE), ("B", SHARED)):
        pairs = zip(factor(network, which, adapter), factor(before, which, adapter), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_drawn_values_have_the_range_in_which_lora_starts() -> None:
    network = adapted()
    draw_a(network, SHARED, seed="7")
    values = torch.cat([a.flatten() for a in factor(network, "A")])
    bound = 24**-0.5
    assert 0.98 * bound < values.abs().max() <= bound
    assert values.mean().abs() < 0.1 * bound
    assert values.var() == pytest.approx(bound**2 / 3, rel=0.1)


@torch.no_grad()
def test_without_b_an_adapter_has_no_effect() -> None:
    network = tiny_vit()
    attach_lora(network, LoraSettings(), (SHARED,))
    randomise(network, "lora_B")
    zero_b(network, SHARED)
    assert torch.equal(network(tiny_photographs()), tiny_vit()(tiny_photographs()))


@pytest.mark.parametrize("rank", [1, 4, 6])
def test_a_cut_adapter_keeps_its_first_directions(rank: int) -> None:
    network, before = adapted(), adapted()
    truncate(network, SHARED, rank=rank)
    for a, b, old_a, old_b in zip(*(factor(n, which) for n in (network, before) for which in "AB"), strict=True):
        assert torch.equal(a[:rank], old_a[:rank])
        assert torch.equal(b[:, :rank], old_b[:, :rank])
        assert not a[rank:].any()
        assert not b[:, rank:].any()


def test_training_leaves_what_was_cut_at_zero() -> None:
    network = adapted()
    truncate(network, SHARED, rank=2)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    before = [a.clone() for a in factor(network, "A")]
    for _ in range(3):
        optimiser.zero_grad()
        network(tiny_photographs()).square().sum().backward()
        optimiser.step()
    for a, b, old in zip(factor(network, "A"), factor(network, "B"), before, strict=True):
        assert not a[2:].any()
        assert not b[:, 2:].any()
        assert not torch.equal(a[:2], old[:2])


def test_a_frozen_a_leaves_b_trainable() -> None:
    network = adapted()
    freeze_a(network, SHARED)
    trains = {name for name, p in network.named_parameters() if p.requires_grad}
    assert not any(f"lora_A.{SHARED}" in name for name in trains)
    assert {
        f"{layer}.lora_{f}" for layer in lora_layers(network) for f in (f"B.{SHARED}.weight", f"A.{PRIVATE}.weight")
    } < trains
