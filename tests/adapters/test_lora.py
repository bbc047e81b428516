"""Adapters against the closed form W0 x + sum_a s B_a A_a x in float64."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
from torch import nn

from monai_fedlora.adapters.active_adapters import with_weights
from monai_fedlora.adapters.lora import (
    PRIVATE,
    SHARED,
    LoraSettings,
    attach_lora,
    lora_layers,
    merge_lora,
)
from monai_fedlora.adapters.targets import target_modules
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.cinema import ConvViT, convvit
from tests.helpers import randomise, tiny_images, tiny_network

EVERY_TARGET = ("attn.q", "attn.kv", "attn.proj", "mlp.fc1", "mlp.fc2")


SETTINGS = LoraSettings(rank=3, alpha=5.0)


def dual(settings: LoraSettings = SETTINGS, *, random_b: bool = True) -> ConvViT:
    network = tiny_network()
    attach_lora(network, settings, (SHARED, PRIVATE))
    if random_b:
        randomise(network, "lora_B")
    return network.eval()


def with_folded_weights(network: ConvViT, adapters: tuple[str, ...], scale: float) -> ConvViT:
    """The plain network in float64 with W0 + sum_a scale B_a A_a, computed from the state dict alone."""
    state = network.state_dict()
    plain = tiny_network().double()
    folded = {}
    for key in plain.state_dict():
        stem, _, leaf = key.rpartition(".")
        base = state.get(f"{stem}.base_layer.{leaf}")
        value = (state[key] if base is None else base).double()
        if base is not None and leaf == "weight":
            for adapter in adapters:
                a, b = (state[f"{stem}.lora_{factor}.{adapter}.weight"].double() for factor in "AB")
                value = value + scale * b @ a
        folded[key] = value
    plain.load_state_dict(folded)
    return plain.eval()


@torch.no_grad()
@pytest.mark.parametrize("targets", [("attn.q", "attn.kv"), EVERY_TARGET], ids=["qkv", "all"])
@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_both_adapters_add_to_the_frozen_weight(blocks: int, targets: tuple[str, ...]) -> None:
    network = dual(LoraSettings(rank=3, alpha=5.0, blocks=blocks, targets=targets))
    expected = with_folded_weights(network, (SHARED, PRIVATE), 5 / 3)(tiny_images().double())
    torch.testing.assert_close(network.double()(tiny_images().double()), expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_one_layer_computes_the_sum_over_its_adapters() -> None:
    network = dual().double()
    layer = network.get_submodule("encoder.blocks.2.attn.q")
    x = torch.randn(5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    w0, bias = layer.base_layer.weight, layer.base_layer.bias
    a_g, b_g = layer.lora_A[SHARED].weight, layer.lora_B[SHARED].weight
    a_l, b_l = layer.lora_A[PRIVATE].weight, layer.lora_B[PRIVATE].weight
    scale = 5 / 3
    expected = x @ w0.T + bias + scale * (x @ a_g.T) @ b_g.T + scale * (x @ a_l.T) @ b_l.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    assert (expected - x @ w0.T - bias).abs().max() > 0.1


@torch.no_grad()
def test_an_untrained_adapter_leaves_the_backbone_as_it_is_to_the_bit() -> None:
    assert torch.equal(dual(random_b=False)(tiny_images()), tiny_network()(tiny_images()))


def test_the_factors_start_as_lora_does() -> None:
    state = dual(random_b=False).state_dict()
    for key, value in state.items():
        if "lora_B" in key:
            assert not value.any()
        elif "lora_A" in key:
            bound = 24**-0.5  # Kaiming-uniform with a = sqrt(5)
            assert 0.5 * bound < value.abs().max() <= bound
    first, second = (state[f"encoder.blocks.2.attn.q.lora_A.{adapter}.weight"] for adapter in (SHARED, PRIVATE))
    assert not torch.equal(first, second)


def test_gradients_reach_all_factors_and_nothing_that_is_frozen() -> None:
    network = dual().train()
    for parameter in network.pred_head_dict.parameters():
        parameter.requires_grad_(True)
    network(tiny_images()).square().sum().backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert with_gradient == {
        *(
            f"encoder.blocks.{block}.attn.{target}.lora_{factor}.{adapter}.weight"
            for block in (1, 2)
            for target in ("q", "kv")
            for factor in "AB"
            for adapter in (SHARED, PRIVATE)
        ),
        *(f"pred_head_dict.{head}.{leaf}" for head in ("sax", "cls") for leaf in ("weight", "bias")),
    }
    assert all(p.grad is None for p in network.parameters() if not p.requires_grad)


@pytest.mark.parametrize(
    ("blocks", "adapted"), [(1, [2]), (2, [1, 2]), (3, [0, 1, 2]), (0, [0, 1, 2])], ids=["1", "2", "3", "all"]
)
def test_only_the_chosen_blocks_and_targets_are_adapted(blocks: int, adapted: list[int]) -> None:
    settings = LoraSettings(blocks=blocks, targets=("attn.q", "mlp.fc1"))
    names = [f"encoder.blocks.{block}.{target}" for block in adapted for target in ("attn.q", "mlp.fc1")]
    assert target_modules(tiny_network(), targets=settings.targets, blocks=blocks) == names
    network = dual(settings)
    assert list(lora_layers(network)) == names
    assert all(set(layer.lora_A) == {SHARED, PRIVATE} for layer in lora_layers(network).values())


@pytest.mark.parametrize("blocks", [1, 2, 0])
def test_block_numbers_of_two_digits_are_not_confused(blocks: int) -> None:
    """Twelve blocks with five targets also pass the number from which PEFT shortens its list of names."""
    with torch.device("meta"):
        network = convvit("base", out_chans=2)
        attach_lora(network, LoraSettings(blocks=blocks, targets=EVERY_TARGET), (SHARED, PRIVATE))
    first = 12 - (blocks or 12)
    layers = lora_layers(network)
    assert set(layers) == {f"encoder.blocks.{b}.{t}" for b in range(first, 12) for t in EVERY_TARGET}
    assert all(set(layer.lora_A) == {SHARED, PRIVATE} for layer in layers.values())


@torch.no_grad()
@pytest.mark.parametrize(("off", "rest"), [(PRIVATE, (SHARED,)), (SHARED, (PRIVATE,))])
def test_without_an_adapter_the_others_remain(off: str, rest: tuple[str, ...]) -> None:
    network = dual()
    before = network(tiny_images())
    expected = with_folded_weights(network, rest, 5 / 3)(tiny_images().double()).float()
    with with_weights(network, {off: 0.0}):
        torch.testing.assert_close(network(tiny_images()), expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(network(tiny_images()), before)
    assert torch.equal(network(tiny_images()), before)


def test_an_adapter_comes_back_after_an_error() -> None:
    network = dual()
    scales = {name: dict(layer.scaling) for name, layer in lora_layers(network).items()}
    with pytest.raises(RuntimeError), with_weights(network, {PRIVATE: 0.0}):
        raise RuntimeError
    assert {name: dict(layer.scaling) for name, layer in lora_layers(network).items()} == scales


@torch.no_grad()
def test_leaving_out_an_adapter_that_is_not_there_changes_nothing() -> None:
    network = tiny_network()
    attach_lora(network, LoraSettings(), (SHARED,))
    randomise(network, "lora_B")
    before = network(tiny_images())
    with with_weights(network, {PRIVATE: 0.0}):
        assert torch.equal(network(tiny_images()), before)


@torch.no_grad()
@pytest.mark.parametrize("chosen", [None, (SHARED, PRIVATE), (SHARED,), (PRIVATE,), ()], ids=str)
def test_a_merged_network_computes_what_the_chosen_adapters_did(chosen: tuple[str, ...] | None) -> None:
    network = dual(LoraSettings(rank=3, alpha=5.0, blocks=0, targets=EVERY_TARGET))
    kept = (SHARED, PRIVATE) if chosen is None else chosen
    expected = with_folded_weights(network, kept, 5 / 3)(tiny_images().double()).float()
    merged = merge_lora(network, chosen)
    assert merged is network
    torch.testing.assert_close(merged(tiny_images()), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_merged_network_equals_the_unmerged_one() -> None:
    network = dual()
    before = network(tiny_images())
    torch.testing.assert_close(merge_lora(network)(tiny_images()), before, rtol=1e-5, atol=1e-5)


def test_a_merged_network_has_the_keys_and_modules_of_the_plain_one() -> None:
    merged, plain = merge_lora(dual()), tiny_network()
    assert list(merged.state_dict()) == list(plain.state_dict())
    assert [type(module) for module in merged.modules()] == [type(module) for module in plain.modules()]
    assert not hasattr(merged, "peft_config")
    fresh = tiny_network(seed=9)
    fresh.load_state_dict(merged.state_dict())


def test_merging_twice_changes_nothing_more() -> None:
    merged = merge_lora(dual())
    once = copy.deepcopy(merged.state_dict())
    twice = merge_lora(merge_lora(merged), (SHARED,)).state_dict()
    assert all(torch.equal(twice[key], value) for key, value in once.items())
    assert twice.keys() == once.keys()


def test_merging_leaves_other_weights_to_the_bit() -> None:
    before = tiny_network().state_dict()
    after = merge_lora(dual()).state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"encoder.blocks.{b}.attn.{t}.weight" for b in (1, 2) for t in ("q", "kv")}


def test_merging_an_adapter_that_does_not_exist_is_an_error() -> None:
    network = dual()
    with pytest.raises(ConfigError, match="sharde"):
        merge_lora(network, ("sharde",))
    assert len(lora_layers(network)) == 4


def test_merging_refuses_to_write_a_weight_that_is_not_finite() -> None:
    network = dual()
    with torch.no_grad():
        network.get_parameter("encoder.blocks.2.attn.kv.lora_B.private.weight")[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        merge_lora(network)


def test_attaching_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dual()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rank", 0),
        ("rank", -1),
        ("rank", 2.0),
        ("rank", "8"),
        ("rank", True),
        ("alpha", 0),
        ("alpha", -1.0),
        ("alpha", float("nan")),
        ("alpha", float("inf")),
        ("alpha", "16"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("dropout", "0"),
        ("blocks", -1),
        ("blocks", 1.0),
        ("blocks", True),
        ("blocks", "all"),
        ("targets", ()),
        ("targets", "attn.q"),
        ("targets", (1,)),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        LoraSettings(**{setting: value})


def test_more_blocks_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"4.*only 3"):
        attach_lora(tiny_network(), LoraSettings(blocks=4), (SHARED,))


@pytest.mark.parametrize("target", ["attn.v", "attn", "queries", "norm1", "encoder.blocks.3.attn.q"])
def test_a_target_that_is_no_linear_layer_of_a_block_is_an_error(target: str) -> None:
    network = tiny_network()
    with pytest.raises(ConfigError, match=re.escape(repr(target)) + ".*attn.q, attn.kv"):
        attach_lora(network, LoraSettings(targets=(target,)), (SHARED,))


def test_a_whole_dotted_name_is_a_target_in_whichever_block_it_lies() -> None:
    first, last = "encoder.blocks.0.attn.q", "encoder.blocks.1.mlp.fc2"
    names = target_modules(tiny_network(), targets=(first, "proj", last), blocks=1)
    assert names == ["encoder.blocks.2.attn.proj", first, last]


def test_dropout_acts_in_training_only() -> None:
    network = dual(LoraSettings(dropout=0.5))
    assert torch.equal(network(tiny_images()), network(tiny_images()))
    network.train()
    assert not torch.equal(network(tiny_images()), network(tiny_images()))
    dropouts = [m for layer in lora_layers(network).values() for m in layer.lora_dropout.values()]
    assert {m.p for m in dropouts if isinstance(m, nn.Dropout)} == {0.5}
