from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from monai_fedlora.engines.dataset import case_loader
from monai_fedlora.engines.evaluator import CaseEvaluator
from monai_fedlora.engines.evidence import run_and_keep
from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.methods import get_method
from monai_fedlora.networks.frozen_weights import frozen_in_bfloat16, product_weight
from tests.methods.federation import BACKBONES, PAIRS, Cases, Member, attached, bits

FAST = [("dual_lora", "vit"), ("flexlora", "convvit")]
EVERY = [pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow) for pair in PAIRS]


class Conversions(TorchDispatchMode):
    """How often each tensor of a network is converted to bfloat16, by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._names = {p.data_ptr(): name for name, p in network.named_parameters() if not p.requires_grad}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_to_copy" and (kwargs or {}).get("dtype") is torch.bfloat16:
            self.found[self._names.get(args[0].data_ptr(), "other")] += 1
        return func(*args, **(kwargs or {}))


def run(name: str, family: str, precision: Any = "bf16") -> tuple[dict[str, bytes], torch.Tensor]:
    """What a round trains, and the logits of an evaluation after it."""
    member = Member(get_method(name), family, mixed_precision=precision)
    member.train(0, member.initial())
    evaluator = CaseEvaluator(
        device="cpu",
        val_data_loader=case_loader(Cases(family, 4, 9), batch_size=2),
        network=member.network,
        mixed_precision=precision,
    )
    return bits(member.network.state_dict()), run_and_keep(evaluator)["logits"]


@pytest.mark.parametrize(("name", "family"), EVERY)
def test_held_weights_train_and_evaluate_to_the_bits_of_autocast(
    name: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = attached(get_method(name), family)
    if all(parameter.requires_grad for parameter in network.parameters()):
        with frozen_in_bfloat16(network):
            assert not any("forward" in vars(module) for module in network.modules())
        return  # and oneDNN's gradient of a depthwise convolution in bfloat16 differs from run to run
    held, logits = run(name, family)
    monkeypatch.setattr("monai_fedlora.engines.precision.frozen_in_bfloat16", lambda network, enabled: nullcontext())
    converted, expected = run(name, family)
    assert [key for key in held if held[key] != converted[key]] == []
    assert torch.equal(logits, expected)


@pytest.mark.parametrize(("name", "family"), EVERY)
def test_no_frozen_weight_is_converted_twice(name: str, family: str) -> None:
    network = attached(get_method(name), family).eval()
    images = BACKBONES[family].images(2)
    with frozen_in_bfloat16(network):
        with Conversions(network) as first, torch.autocast("cpu", dtype=torch.bfloat16):
            network(images)
        with Conversions(network) as again:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(images)
            if logits.requires_grad:
                logits.sum().backward()
    assert max([0, *(count for name, count in first.found.items() if name != "other")]) <= 1
    assert set(again.found) <= {"other"}
    with Conversions(network) as without, torch.autocast("cpu", dtype=torch.bfloat16):
        network(images)
    frozen = [p for p in network.parameters() if not p.requires_grad]
    assert not frozen or set(without.found) - {"other"}


def test_a_context_leaves_nothing_behind_and_changes_no_digest() -> None:
    network = attached(get_method("dual_lora"), "convvit")
    before, digest = bits(network.state_dict()), frozen_part(network).digest
    images = BACKBONES["convvit"].images(2)
    with frozen_in_bfloat16(network), torch.autocast("cpu", dtype=torch.bfloat16):
        network(images)
        assert frozen_part(network).digest == digest
        assert bits(network.state_dict()) == before
        assert all(p.dtype == torch.float32 for p in network.parameters())
        copied = copy.deepcopy(network)
    assert not any("forward" in vars(module) for module in network.modules())
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(2)  # what is held for the one does not count for the other
        twice = copied(images)
        for p in network.parameters():
            p.mul_(2)
    assert torch.equal(network(images), twice)


def test_weights_changed_between_two_contexts_count() -> None:
    layer = nn.Linear(4, 3).requires_grad_(False)
    for factor in (1.0, 3.0):
        layer.weight.data.fill_(factor)
        with frozen_in_bfloat16(layer), torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(product_weight(layer), torch.full((3, 4), factor, dtype=torch.bfloat16))
            assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
        assert product_weight(layer) is layer.weight


def test_without_autocast_a_layer_computes_with_its_own_weights() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 3).requires_grad_(False), torch.rand(2, 4)
    expected = layer(x)
    with frozen_in_bfloat16(layer):
        assert torch.equal(layer(x), expected)
        with torch.autocast("cpu", dtype=torch.float16):
            assert layer(x).dtype == torch.float16


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(4, 3, 2, padding=1, padding_mode="circular")])
def test_what_trains_or_computes_in_a_way_of_its_own_is_left_alone(layer: nn.Module) -> None:
    class Own(type(layer)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.weight.sum()

    own = copy.deepcopy(layer).requires_grad_(False)
    own.__class__ = Own
    frozen = copy.deepcopy(layer).requires_grad_(False)
    network = nn.ModuleList([layer, own, frozen])
    with frozen_in_bfloat16(network):
        assert ["forward" in vars(module) for module in network] == [False, False, True]
        with frozen_in_bfloat16(network):
            pass
        assert "forward" in vars(frozen)
        frozen.requires_grad_(True)
        x = torch.rand(2, 4, 4, 4) if isinstance(layer, nn.Conv2d) else torch.rand(2, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            frozen(x).float().sum().backward()
        assert frozen.weight.grad is not None


@pytest.mark.slow
def test_a_compiled_network_takes_the_held_weights_and_is_compiled_once() -> None:
    network = attached(get_method("dual_lora"), "vit").eval()
    images, graphs = BACKBONES["vit"].images(2), []

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    plain = copy.deepcopy(network)
    network.compile(backend=count, fullgraph=True)
    low = torch.autocast("cpu", dtype=torch.bfloat16)
    for _ in range(3):
        plain.load_state_dict(network.state_dict())
        with frozen_in_bfloat16(network), low:
            assert torch.equal(network(images), plain(images))
        with torch.no_grad():
            for parameter in network.blocks.parameters():
                parameter.mul_(1.5)
    assert len(graphs) == 1


def in_bfloat16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def frozen_and_head() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    network[0].requires_grad_(False)
    return network


def zero(layer: nn.Module) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()


def let_train(layer: nn.Module) -> None:
    layer.requires_grad_(True)
    zero(layer)
    layer.requires_grad_(False)


def put_others(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.data = torch.zeros_like(parameter)


@pytest.mark.parametrize("change", [zero, let_train, put_others])
def test_weights_changed_inside_a_context_count(change: Any) -> None:
    network, x = frozen_and_head(), torch.randn(3, 4)
    with frozen_in_bfloat16(network), in_bfloat16():
        assert network[0](x).any()
        change(network[0])
        assert not network[0](x).any()


def test_a_bias_that_begins_to_train_gets_its_gradient() -> None:
    network = frozen_and_head()
    with frozen_in_bfloat16(network), in_bfloat16():
        network[0].bias.requires_grad_(True)
        network(torch.randn(3, 4)).sum().backward()
    assert network[0].bias.grad is not None


def test_a_copy_made_inside_a_context_computes_from_its_own_weights_and_can_be_held() -> None:
    network, x = frozen_and_head(), torch.randn(3, 4)
    with frozen_in_bfloat16(network), in_bfloat16():
        network(x)
        other = copy.deepcopy(network)
        assert copy.copy(vars(network[0])["forward"]).ends  # as where it is pickled
        zero(other[0])
        assert not other[0](x).any()
    with frozen_in_bfloat16(other), in_bfloat16():
        assert not other[0](x).any()
        assert vars(other[0])["forward"].serves("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_numbers_that_autocast_leaves_alone_are_left_alone(dtype: torch.dtype) -> None:
    layer, x = nn.Linear(4, 4, dtype=dtype).requires_grad_(False), torch.randn(3, 4).to(dtype)
    expected = layer(x)
    with frozen_in_bfloat16(layer), in_bfloat16():
        assert torch.equal(layer(x), expected)


def test_a_network_that_its_layers_refer_to_is_freed() -> None:
    network = frozen_and_head()
    network[0].owner = [network]
    with frozen_in_bfloat16(network), in_bfloat16():
        network(torch.randn(3, 4))
    found = weakref.ref(network)
    del network
    gc.collect()
    assert found() is None


@pytest.mark.parametrize(("precision", "holds"), [("bf16", True), ("off", False)])
def test_a_run_in_bfloat16_holds_them(precision: Any, holds: bool) -> None:
    member = Member(get_method("dual_lora"), "vit", mixed_precision=precision)
    evaluator = CaseEvaluator(
        device="cpu",
        val_data_loader=case_loader(Cases("vit", 2, 9), batch_size=2),
        network=member.network,
        mixed_precision=precision,
    )
    found = []
    for engine in (member.trainer, evaluator):
        engine.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda: found.append(any("forward" in vars(m) for m in member.network.modules())),
        )
    member.train(0, member.initial())
    run_and_keep(evaluator)
    assert found == [holds] * 3
