"""The side network against its equations, written anew in float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from monai_fedlora.adapters.active_adapters import set_weights, with_weights
from monai_fedlora.adapters.lora import PRIVATE, LoraSettings, lora_layers, merge_lora
from monai_fedlora.adapters.side import SideSettings, attach_side
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import Features, Taps
from monai_fedlora.networks.catalogue import build_backbone
from tests.helpers import randomise, tiny_images, tiny_network, tiny_photographs, tiny_vit

CLIP = {"pre_norm": True, "activation": "quick_gelu", "patch_bias": False}
FAMILIES: dict[str, Any] = {
    "vit": (tiny_vit, tiny_photographs),
    "clip": (lambda **settings: tiny_vit(**CLIP, **settings), tiny_photographs),
    "dinov2": (lambda **settings: tiny_vit(layer_scale=True, **settings), tiny_photographs),
    "mae": (lambda **settings: tiny_vit(readout="mean", **settings), tiny_photographs),
    "convvit": (tiny_network, tiny_images),
    "convvit_cls": (lambda **settings: tiny_network(readout="cls", **settings), tiny_images),
}
SETTINGS = SideSettings(width=8, heads=2)
PRIVATE_LORA = LoraSettings(rank=2, alpha=3.0)
SCALE = 1.5


def beside(
    family: str = "vit",
    settings: SideSettings = SETTINGS,
    *,
    private: LoraSettings | None = PRIVATE_LORA,
    depth: int = 4,
    random: bool = True,
) -> Any:
    """A small network with a side network of random weights, in evaluation mode."""
    network = FAMILIES[family][0](depth=depth)
    torch.manual_seed(3)
    attach_side(network, settings, private=private)
    if random:
        randomise(network, "side.")
    return network.eval()


def images_for(family: str) -> Tensor:
    return FAMILIES[family][1]()


def equations(network: Any, images: Tensor, *, taps: list[int], heads: int, private: float) -> Tensor:
    """Logits by the equations, from the state dict and the backbone's own blocks, every token computed."""
    weights = {key.removeprefix("side."): value for key, value in network.state_dict().items()}

    def projected(layer: str, x: Tensor) -> Tensor:
        if f"{layer}.weight" in weights:
            return x @ weights[f"{layer}.weight"].T
        a, b = (weights[f"{layer}.lora_{factor}.private.weight"] for factor in "AB")
        return x @ weights[f"{layer}.base_layer.weight"].T + private * (x @ a.T) @ b.T

    def attention(i: int, n: Tensor) -> Tensor:
        parts = []
        width = n.shape[-1] // heads
        for head in range(heads):
            q, k, v = (
                n @ w[head * width : (head + 1) * width].T for w in weights[f"blocks.{i - 1}.qkv.weight"].chunk(3)
            )
            parts.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width), dim=-1) @ v)
        return projected(f"blocks.{i - 1}.out", torch.cat(parts, dim=-1))

    with torch.no_grad():
        tokens, addend = network.embed(images)
        h = [tokens]
        for block in network.blocks[:-1]:
            h.append(block(h[-1]))
        x = projected(f"down.{taps[0]}", h[taps[0]])
        for i in range(1, len(taps)):
            scale, shift = (weights[f"blocks.{i - 1}.norm.{leaf}"] for leaf in ("weight", "bias"))
            s = x + attention(i, functional.layer_norm(x, x.shape[-1:], scale, shift, 1e-5))
            x = s + projected(f"down.{taps[i]}", h[taps[i]])
        last = h[-1] + projected("up", x)
        return network.readout(Features(network.blocks[-1](last), addend))


@pytest.mark.slow
@pytest.mark.parametrize("private", [SCALE, 0.0], ids=["private on", "private off"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_are_those_of_the_equations(family: str, private: float) -> None:
    network, images = beside(family).double(), images_for(family).double()
    expected = equations(network, images, taps=[0, 1, 2, 3], heads=2, private=private)
    with with_weights(network, {PRIVATE: private / SCALE}), torch.no_grad():
        torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-10)
    other = equations(network, images, taps=[0, 1, 2, 3], heads=2, private=SCALE - private)
    assert (expected - other).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("taps", [(3,), (0, 3), (2, 0, 1), (1,)], ids=str)
def test_fewer_taps_are_a_shorter_side_network(taps: tuple[int, ...]) -> None:
    network = beside(settings=SideSettings(width=6, heads=3, taps=taps)).double()
    images = images_for("vit").double()
    assert list(network.side.down) == [str(tap) for tap in sorted(taps)]
    assert len(network.side.blocks) == len(taps) - 1
    expected = equations(network, images, taps=sorted(taps), heads=3, private=SCALE)
    torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_network_of_one_block_has_a_side_network_without_attention() -> None:
    network = beside(depth=1).double()
    images = images_for("vit").double()
    assert not network.side.blocks
    expected = equations(network, images, taps=[0], heads=2, private=SCALE)
    torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_side_network_leaves_the_logits_as_they_are_to_the_bit(family: str) -> None:
    network = beside(family, random=False)
    expected = FAMILIES[family][0](depth=4)(images_for(family))
    assert torch.equal(network(images_for(family)), expected)
    randomise(network, "side.up")
    assert (network(images_for(family)) - expected).abs().max() > 1e-3


# ---- gradients and memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_no_hidden_state_has_a_graph_and_no_weight_of_the_backbone_a_gradient(family: str) -> None:
    network = beside(family).train()
    seen: list[Tensor] = []
    for block in network.blocks[:-1]:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network(images_for(family)).square().sum().backward()
    assert len(seen) == 3
    assert all(hidden.grad_fn is None and not hidden.requires_grad for hidden in seen)
    frozen = [p for name, p in network.named_parameters() if not name.startswith("side.")]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_reaches_every_part_of_the_side_network(family: str) -> None:
    network = beside(family).train()
    network(images_for(family)).square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {f"side.{name}" for name, _ in network.side.named_parameters()}
    assert all(network.get_parameter(name).grad.abs().max() > 0 for name in trained)


def test_a_new_side_network_starts_to_move_at_its_end() -> None:
    """U is zero: the first gradient reaches U and its adapter alone, and the next one everything."""
    network = beside(random=False).train()
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    reached = []
    for _ in range(3):
        optimiser.zero_grad()
        network(images_for("vit")).square().sum().backward()
        reached.append({name for name, p in network.side.named_parameters() if p.grad.any()})
        optimiser.step()
    every = {name for name, _ in network.side.named_parameters()}
    behind_zero = {name for name in every if ".lora_A." in name and not name.startswith("up.")}
    assert reached[0] == {"up.base_layer.weight", "up.lora_B.private.weight"}
    assert reached[1] == every - behind_zero
    assert reached[2] == every


def test_training_keeps_one_copy_of_every_hidden_state() -> None:
    """Of what is as wide as the backbone and as long as all tokens, the blocks before the last keep h_i and no more."""
    network, images = beside("vit", depth=6).train(), images_for("vit")
    taps = network.taps(images)
    last = len(network.blocks) - 1
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel() == taps.hidden[0].numel():
            kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.side.features(taps.hidden)
    assert set(kept) == {hidden.untyped_storage().data_ptr() for hidden in taps.hidden}
    kept.clear()
    features = network.side.features(taps.hidden).detach()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.suffix(Features(taps.hidden[-1] + network.side.up(features), taps.addend), last)
    assert len(set(kept)) == 2  # h' and its norm in the last block


def test_the_last_block_computes_the_class_token_alone_where_nothing_else_is_read() -> None:
    for family, length in (("clip", 1), ("mae", 17), ("convvit_cls", 1), ("convvit", 9)):
        network = beside(family)
        found: list[int] = []
        network.blocks[-1].register_forward_hook(lambda *args, found=found: found.append(args[2].shape[1]))
        network(images_for(family))
        assert found == [length]


def test_hidden_states_from_elsewhere_give_the_same_logits_and_gradients() -> None:
    network, images = beside("convvit"), images_for("convvit")
    expected = network(images)
    hidden, addend = network.taps(images)
    kept = Taps(tuple(tensor.clone() for tensor in hidden), addend.clone())
    found = network.side(network, kept)
    assert torch.equal(found, expected)
    parameters = list(network.side.parameters())
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


# ---- sizes and keys -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "width", "depth"),
    [("clip_base_16", 96, 12), ("vit_base_16", 96, 12), ("clip_large_14", 128, 24), ("base", 96, 12)],
)
def test_the_numbers_of_parameters_are_those_of_the_shapes(size: str, width: int, depth: int) -> None:
    with torch.device("meta"):
        network = build_backbone(size, out_chans=2)
        attach_side(network, SideSettings(), private=LoraSettings(rank=4, alpha=4.0))
    named = {name: p.numel() for name, p in network.side.named_parameters()}
    private = sum(count for name, count in named.items() if ".private." in name)
    shared = sum(named.values()) - private
    dim = 8 * width
    assert shared == (depth + 1) * dim * width + (depth - 1) * (4 * width * width + 2 * width)
    assert private == 4 * ((depth + 1) * (dim + width) + (depth - 1) * 2 * width)
    if width == 96:
        assert (round(shared / 1e6, 2), round(private / 1e3)) == (1.37, 53)


@pytest.mark.parametrize(
    ("dim", "heads", "width"), [(768, 4, 96), (1024, 4, 128), (384, 4, 48), (100, 4, 16), (8, 3, 3)]
)
def test_the_width_is_an_eighth_rounded_up_to_a_multiple_of_the_heads(dim: int, heads: int, width: int) -> None:
    assert SideSettings(heads=heads).width_beside(dim) == width
    assert SideSettings(heads=heads, width=heads * 5).width_beside(dim) == heads * 5


def test_adapters_are_on_every_projection_down_out_and_up() -> None:
    network = beside()
    names = [f"side.{name}" for name in network.side.projections]
    downs, outs = [f"down.{tap}" for tap in range(4)], [f"blocks.{block}.out" for block in range(3)]
    assert sorted(names) == sorted(f"side.{name}" for name in (*downs, *outs, "up"))
    assert sorted(lora_layers(network)) == sorted(names)
    assert all(set(layer.lora_A) == {PRIVATE} for layer in lora_layers(network).values())


def test_with_two_digits_of_taps_every_adapter_has_its_place() -> None:
    """A deep backbone passes the number of layers from which PEFT shortens its list of names."""
    with torch.device("meta"):
        network = build_backbone("clip_large_14", out_chans=2)
        attach_side(network, SideSettings(), private=PRIVATE_LORA)
    assert set(lora_layers(network)) == {f"side.{name}" for name in network.side.projections}
    assert len(lora_layers(network)) == 24 + 23 + 1


@torch.no_grad()
@pytest.mark.parametrize("weight", [1.0, 0.0])
@pytest.mark.parametrize("family", ["vit", "convvit"])
def test_merging_gives_a_plain_side_network(family: str, weight: float) -> None:
    network, images = beside(family), images_for(family)
    set_weights(network, {PRIVATE: weight})
    expected = network(images)
    plain = beside(family, private=None)
    plain.load_state_dict(merge_lora(network).state_dict())
    torch.testing.assert_close(plain(images), expected, rtol=1e-5, atol=1e-5)
    keys = set(FAMILIES[family][0](depth=4).state_dict())
    assert {key for key in network.state_dict() if not key.startswith("side.")} == keys
    once = copy.deepcopy(network.state_dict())
    assert not lora_layers(network)
    assert all(torch.equal(value, once[key]) for key, value in merge_lora(network).state_dict().items())


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"width": 10}, "width is 10; it must be a multiple of heads, 4"),
        ({"width": -4}, "width is -4"),
        ({"heads": 0}, "heads is 0"),
        ({"heads": True}, "heads is True"),
        ({"taps": (1, 1)}, "twice"),
        ({"taps": (-1,)}, "taps is"),
        ({"taps": "01"}, "taps is '01'"),
    ],
    ids=str,
)
def test_settings_of_no_side_network_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SideSettings(**settings)


def test_a_tap_beyond_the_last_block_is_refused() -> None:
    attach_side(tiny_vit(depth=3), SideSettings(taps=(2,)))
    with pytest.raises(ConfigError, match="taps names block 3, but the network has only blocks 0 to 2"):
        attach_side(tiny_vit(depth=3), SideSettings(taps=(0, 3)))
