"""Which layers get an adapter: by role, path, name and pattern, and which cannot have one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import monai_fedlora as fl
from monai_fedlora.adapters.lora import LoraSettings, add_adapters, lora_layers, merge_lora
from monai_fedlora.adapters.targets import target_modules
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.blocked import BlockedNetwork
from monai_fedlora.networks.layers import matching, roles_of
from monai_fedlora.networks.opened import OpenedNetwork
from tests.helpers import randomise
from tests.own_networks import OWN, OwnCnn, monai_vit


class Net(nn.Module):
    """Any network: layers by name, all called one after the other on their own input."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


@pytest.mark.parametrize(
    ("kind", "names", "blocks", "found"),
    [
        ("monai-vit", ["q", "v"], 2, ["blocks.1.attn.qkv", "blocks.2.attn.qkv"]),
        ("monai-vit", ["mlp.linear1"], 1, ["blocks.2.mlp.linear1"]),
        ("monai-vit", ["proj"], 0, [f"blocks.{i}.attn.out_proj" for i in range(3)]),
        ("transformers-vit", ["q", "v"], 1, ["vit.layers.2.attention.q_proj", "vit.layers.2.attention.v_proj"]),
        ("timm-vit", ["fc2"], 1, ["blocks.2.mlp.fc2"]),
        ("timm-vit", ["blocks.0.attn.proj", "k"], 1, ["blocks.2.attn.qkv", "blocks.0.attn.proj"]),
    ],
)
def test_roles_and_paths_are_those_of_the_last_blocks(
    kind: str, names: list[str], blocks: int, found: list[str]
) -> None:
    own = OWN[kind]
    network = BlockedNetwork(own.network(), head=[own.head], blocks=str(own.blocks))
    assert target_modules(network, targets=names, blocks=blocks) == [f"module.{name}" for name in found]


def test_without_a_list_of_blocks_roles_are_looked_for_everywhere_if_so_said() -> None:
    network = OpenedNetwork(monai_vit(), head=["classification_head"])
    found = target_modules(network, targets=["q", "linear2"], blocks=0)
    assert sorted(found) == sorted(
        f"module.blocks.{i}.{name}" for i in range(3) for name in ("attn.qkv", "mlp.linear2")
    )
    with pytest.raises(ConfigError, match=r"blocks is 2.*'q'.*blocks=\.\.\. \('blocks'\).*blocks to 0"):
        target_modules(network, targets=["q"], blocks=2)
    with pytest.raises(ConfigError, match=r"targets has 'lin1': no layer.*there are .*linear1"):
        target_modules(network, targets=["lin1"], blocks=0)
    for name in ("blocks.0.attn.qkv", "module.blocks.0.attn.qkv"):
        assert target_modules(network, targets=[name], blocks=2) == ["module.blocks.0.attn.qkv"]


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("encoder.layer.3.attention.attention.query", ("q",)),
        ("encoder.layer.3.attention.output.dense", ("proj",)),
        ("encoder.layer.3.intermediate.dense", ("fc1",)),
        ("encoder.layer.3.output.dense", ("fc2",)),
        ("blocks.0.attn.qkv", ("q", "k", "v")),
        ("qkv", ("q", "k", "v")),
        ("patch_embed.proj", ()),
        ("my_query", ()),
        ("classifier", ()),
    ],
)
def test_a_layers_role_is_told_by_the_end_of_its_name(name: str, roles: tuple[str, ...]) -> None:
    assert roles_of(name) == roles


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"blocks\.[23]\.atn\.qkv", "nearest are blocks.2.attn.qkv"),
        (r"attn\.qkv", r"a part of 'blocks.0.attn.qkv': put \.\* around"),
        (r"zzz", "there are patch_embedding, .* and others"),
    ],
)
def test_a_pattern_that_matches_no_whole_name_is_told_the_nearest(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"matches the whole dotted name of no layer.*{message}"):
        matching(monai_vit(), pattern)


@settings(max_examples=15, deadline=None)
@given(chosen=st.sets(st.sampled_from(["one", "two", "one_more", "deep.one", "deep.two"]), min_size=1))
def test_a_pattern_adapts_the_layers_that_it_matches_and_no_other(chosen: set[str]) -> None:
    layers = {name: nn.Linear(4, 4) for name in ("one", "two", "one_more")}
    network = Net(**layers, deep=Net(one=nn.Linear(4, 4), two=nn.Linear(4, 4)))
    before = network(torch.ones(2, 4))
    site = fl.attach(network, fl.method("fedit", targets="|".join(map(re.escape, chosen))), images=torch.ones(2, 4))
    assert set(lora_layers(site.network)) == chosen
    assert torch.equal(site(torch.ones(2, 4)), before)


def parametrised() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))


def tied() -> nn.Module:
    network = Net(fc=nn.Linear(4, 4), other=nn.Linear(4, 4), out=nn.Linear(4, 2))
    network.get_submodule("other").weight = network.get_submodule("fc").weight
    return network


def twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.ModuleDict({"fc": layer, "again": nn.ModuleList([layer])})


REFUSED: dict[str, tuple[Any, str, str]] = {
    "embedding": (lambda: Net(fc=nn.Embedding(4, 4)), "fc", "fc is a Embedding, which LoRA cannot adapt"),
    "norm": (lambda: Net(fc=nn.LayerNorm(4)), "fc", "fc is a LayerNorm"),
    "container": (
        lambda: Net(fc=nn.Sequential(nn.Linear(4, 2))),
        "fc",
        r"fc is a Sequential.*inside of it are .*fc\.0",
    ),
    "transposed": (lambda: Net(fc=nn.ConvTranspose2d(4, 4, 2)), "fc", "ConvTranspose2d"),
    "recurrent": (lambda: Net(fc=nn.LSTM(4, 4)), "fc", "LSTM"),
    "attention": (lambda: Net(fc=nn.MultiheadAttention(4, 2)), "fc", "MultiheadAttention, which LoRA cannot"),
    "attention's part": (lambda: Net(fc=nn.MultiheadAttention(4, 2)), r"fc\.out_proj", "without calling them"),
    "fused encoder": (
        lambda: Net(fc=nn.TransformerEncoderLayer(4, 2)),
        r"fc\.linear1",
        "TransformerEncoderLayer, which",
    ),
    "groups": (lambda: Net(fc=nn.Conv2d(4, 4, 3, groups=4)), "fc", "has groups 4"),
    "dilation": (lambda: Net(fc=nn.Conv2d(4, 4, 3, dilation=2)), "fc", r"has dilation \(2, 2\)"),
    "padding": (lambda: Net(fc=nn.Conv2d(4, 4, 3, padding_mode="reflect")), "fc", "has padding_mode 'reflect'"),
    "computed weight": (lambda: Net(fc=parametrised()), "fc", "ParametrizedLinear"),
    "old weight norm": (lambda: Net(fc=nn.utils.weight_norm(nn.Linear(4, 4))), "fc", "computes its weight anew"),
    "tied": (tied, "other", r"shares its weight with fc\.weight"),
    "twice": (twice, "fc", r"shares its weight with again\.0\.weight"),
    "in the head": (OwnCnn, "classifier", "belongs to the head"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_layer_that_cannot_have_an_adapter_is_named_with_the_reason(kind: str) -> None:
    build, pattern, message = REFUSED[kind]
    head = "classifier" if build is OwnCnn else None
    with pytest.raises(ConfigError, match=message):
        fl.attach(build(), fl.method("fedit", targets=pattern, head=head))


class Functional(nn.Module):
    """Reads the weight of a layer without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(functional.linear(x, self.fc.weight, self.fc.bias))


def test_a_layer_that_is_never_called_is_found_out() -> None:
    chosen = fl.method("fedit", targets="fc", head="out")
    with pytest.raises(ConfigError, match=r"never calls fc, so that its adapter has no effect"):
        fl.attach(Functional(), chosen, images=torch.rand(3, 4))
    with pytest.raises(ConfigError, match=r"never calls fc"):
        fl.attach(Functional(), chosen)(torch.rand(3, 4))


@torch.no_grad()
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(3, 5, 3, padding=1),
        nn.Conv2d(3, 5, (3, 2), stride=2, padding=1),
        nn.Conv2d(3, 5, 1, bias=False),
        nn.Conv3d(3, 5, 2, stride=(1, 2, 1)),
    ],
    ids=str,
)
def test_an_adapted_convolution_has_the_kernel_of_its_product_and_is_merged_into_it(layer: Any) -> None:
    network = Net(layer=layer)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, *[6] * (layer.weight.ndim - 2))
    add_adapters(network, ["layer"], LoraSettings(rank=2, alpha=3.0), ("shared", "private"))
    assert torch.equal(network(images), functional_convolution(layer, before, images))
    randomise(network, "lora_")
    adapted = lora_layers(network)["layer"]
    kernel = before["layer.weight"].clone()
    for name in ("shared", "private"):
        a, b = adapted.lora_A[name].weight, adapted.lora_B[name].weight
        kernel += 1.5 * torch.einsum("or,ri...->oi...", b.flatten(1), a)
    expected = functional_convolution(layer, {**before, "layer.weight": kernel}, images)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    merged = merge_lora(network)
    torch.testing.assert_close(merged.state_dict()["layer.weight"], kernel, rtol=1e-5, atol=1e-5)
    assert list(merged.state_dict()) == list(before)


def functional_convolution(layer: Any, state: dict[str, Tensor], images: Tensor) -> Tensor:
    """By hand, with a kernel and a bias."""
    run = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[layer.weight.ndim]
    return run(images, state["layer.weight"], state.get("layer.bias"), layer.stride, layer.padding)


@pytest.mark.parametrize(
    ("name", "words"),
    [("flexlora", {}), ("flora", {}), ("fedopal", {}), ("dual_lora", {"averaging": "product"})],
    ids=lambda value: str(value),
)
def test_methods_that_need_matrices_refuse_convolutions(name: str, words: dict[str, Any]) -> None:
    own = OWN["cnn-convolutions"]
    with pytest.raises(ConfigError, match=rf"{name} computes with the matrices.*, and stem\.0 is a Conv2d"):
        fl.attach(own.network(), fl.method(name, targets=own.targets, **words))


def test_a_common_a_of_a_convolution_has_the_size_that_lora_gives_it() -> None:
    own = OWN["cnn-convolutions"]
    site = fl.attach(own.network(), fl.method("ffa_lora", targets=own.targets))
    for layer in lora_layers(site.opened).values():
        a = layer.lora_A["shared"].weight
        bound = a[0].numel() ** -0.5
        assert 0.7 * bound < a.abs().max() <= bound


def test_a_name_that_is_the_end_of_another_takes_its_own_layer_alone() -> None:
    inner = Net(module=Net(fc=nn.Linear(4, 4)), fc=nn.Linear(4, 2))
    site = fl.attach(inner, fl.method("fedit", targets="fc"))
    assert list(lora_layers(site.opened)) == ["module.fc"]


def test_a_head_that_shares_a_parameter_with_the_rest_is_refused() -> None:
    network = Net(embed=nn.Linear(4, 4, bias=False), fc=nn.Linear(4, 4), out=nn.Linear(4, 4, bias=False))
    network.get_submodule("out").weight = network.get_submodule("embed").weight
    with pytest.raises(ConfigError, match=r"head's out\.weight is one parameter with embed\.weight"):
        fl.attach(network, fl.method("fedit", targets="fc", head="out"))


def test_two_heads_side_by_side_are_made_of_linear_layers() -> None:
    network = Net(fc=nn.Linear(4, 4), out=nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)))
    with pytest.raises(ConfigError, match=r"module\.out\.0\.weight of the head belongs to a LayerNorm"):
        fl.attach(network, fl.method("ditto", targets="fc", head="out"))


@torch.no_grad()
def test_dropout_of_adapters_acts_on_any_network_in_training_only() -> None:
    own = OWN["monai-vit"]
    site = fl.attach(own.network(), fl.method("fedit", targets=own.targets, head=own.head, dropout=0.5))
    randomise(site.opened, "lora_B")
    images = own.images()
    assert torch.equal(site.eval()(images), site(images))
    assert not torch.equal(site.train()(images), site(images))
