"""Adapters and heads count as much as they are told to, for as long as they are told to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_fedlora.adapters.active_adapters import set_weights, with_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, attach_lora, lora_layers, merge_lora
from monai_fedlora.adapters.twin_head import TwinHead, attach_twin_heads
from tests.helpers import randomise, tiny_images, tiny_network, tiny_photographs, tiny_vit

FAMILIES = {"convvit": (tiny_network, tiny_images), "vit": (tiny_vit, tiny_photographs)}
SETTINGS = LoraSettings(rank=3, alpha=5.0)


def adapted(family: str = "vit") -> Any:
    """Both adapters and both heads, all random."""
    network = FAMILIES[family][0]()
    attach_twin_heads(network)
    attach_lora(network, SETTINGS, (SHARED, PRIVATE))
    randomise(network, "lora_", ".shared.", ".private.")
    return network.eval()


def merged_linear(family: str, weights: dict[str, float]) -> Any:
    """A plain network with W0 + sum_a w_a s B_a A_a and head sum_a w_a H_a, from the state dict alone."""
    state, plain = adapted(family).state_dict(), FAMILIES[family][0](seed=5)
    for key, value in plain.state_dict().items():
        stem, _, leaf = key.rpartition(".")
        if f"{stem}.shared.{leaf}" in state:
            total = sum(weight * state[f"{stem}.{branch}.{leaf}"] for branch, weight in weights.items())
        else:
            total = state.get(f"{stem}.base_layer.{leaf}", state.get(key))
            if f"{stem}.lora_A.shared.weight" in state and leaf == "weight":
                for name, weight in weights.items():
                    a, b = (state[f"{stem}.lora_{factor}.{name}.weight"] for factor in "AB")
                    total = total + weight * SETTINGS.scale * b @ a
        value.copy_(total)
    return plain.eval()


WEIGHTS = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.25, 0.75), (1.0, 1.0), (0.0, 0.0)]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_a_view_is_the_weighted_sum(family: str, weights: tuple[float, float]) -> None:
    chosen = dict(zip((SHARED, PRIVATE), weights, strict=True))
    network, images = adapted(family), FAMILIES[family][1]()
    before = network(images)
    with with_weights(network, chosen):
        torch.testing.assert_close(network(images), merged_linear(family, chosen)(images), rtol=1e-5, atol=1e-5)
    assert torch.equal(network(images), before)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_merging_keeps_the_view(family: str, weights: tuple[float, float]) -> None:
    chosen = dict(zip((SHARED, PRIVATE), weights, strict=True))
    network, images = adapted(family), FAMILIES[family][1]()
    set_weights(network, chosen)
    merged = merge_lora(network)
    assert list(merged.state_dict()) == list(FAMILIES[family][0]().state_dict())
    torch.testing.assert_close(merged(images), merged_linear(family, chosen)(images), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_is_not_named_keeps_its_weight() -> None:
    network = adapted()
    set_weights(network, {SHARED: 0.5, PRIVATE: 0.25})
    expected = merged_linear("vit", {SHARED: 0.5, PRIVATE: 0.0})(tiny_photographs())
    with with_weights(network, {PRIVATE: 0.0, "nobody": 3.0}):
        torch.testing.assert_close(network(tiny_photographs()), expected, rtol=1e-5, atol=1e-5)


def test_views_can_be_nested_and_end_with_an_error() -> None:
    network = adapted()
    before = [dict(layer.scaling) for layer in lora_layers(network).values()]
    with pytest.raises(RuntimeError), with_weights(network, {SHARED: 0.0}), with_weights(network, {SHARED: 1.0}):
        raise RuntimeError
    assert [dict(layer.scaling) for layer in lora_layers(network).values()] == before
    assert [head.weights for head in network.modules() if isinstance(head, TwinHead)] == [{SHARED: 1.0, PRIVATE: 0.0}]
