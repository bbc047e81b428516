"""What every method owes its sites: one matrix of behaviours over all registered methods.

A new method gets a row in ``EXPECTED``; the behaviours below then hold for it or fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.methods import Method, base, get_method, method_names, register
from monai_fedlora.networks.cinema import ConvViT, convvit
from monai_fedlora.scope import Role, Scope
from tests.helpers import randomise, through_json, tiny_images, tiny_network

HEAD = {f"pred_head_dict.{head}.{leaf}" for head in ("sax", "cls") for leaf in ("weight", "bias")}
EVERYTHING = set(tiny_network().state_dict())
FIXED = {"enc_down_dict.sax.pos_embed"}


def factors(adapter: str, blocks: tuple[int, ...] = (1, 2), targets: tuple[str, ...] = ("q", "kv")) -> set[str]:
    return {
        f"encoder.blocks.{block}.attn.{target}.lora_{factor}.{adapter}.weight"
        for block in blocks
        for target in targets
        for factor in "AB"
    }


# method: (what travels, what trains and stays in the site)
EXPECTED: dict[str, tuple[set[str], set[str]]] = {
    "dual_lora": (factors("shared") | HEAD, factors("private")),
    "fedavg": (EVERYTHING - FIXED, set()),
    "fedit": (factors("shared") | HEAD, set()),
    "local": (set(), factors("private") | HEAD),
}


def attached(method: Method, *, seed: int = 3) -> ConvViT:
    """The same backbone every time; head and adapters from ``seed``."""
    network = tiny_network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.attach(network)
    return network


def train(network: ConvViT, steps: int, optimiser: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = optimiser or torch.optim.AdamW(parameters, lr=0.05)
    labels = torch.tensor([0, 1])
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(tiny_images()), labels).backward()
        optimiser.step()
    return optimiser


def trained(method: Method, *, seed: int = 3) -> tuple[ConvViT, Scope]:
    network = attached(method, seed=seed)
    train(network, 3)
    return network, method.scope(network)


def logits(network: ConvViT) -> Tensor:
    with torch.no_grad():
        return network(tiny_images())


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {key: value.detach().numpy().tobytes() for key, value in tensors.items()}


# ---- the behaviours -------------------------------------------------------------------------------------


def every_tensor_that_trains_is_shared_or_private_and_no_other(method: Method) -> None:
    network = attached(method)
    scope = method.scope(network)
    trains = {name for name, p in network.named_parameters() if p.requires_grad}
    assert set(scope.keys(Role.SHARED)) | set(scope.keys(Role.PRIVATE)) == trains
    assert set(scope.roles) == set(network.state_dict())
    assert trains


def private_values_never_enter_a_payload(method: Method) -> None:
    network, scope = trained(method)
    canary = np.float32(1234.5)
    with torch.no_grad():
        for key in [*scope.keys(Role.PRIVATE), *scope.keys(Role.FROZEN)]:
            network.state_dict()[key].fill_(float(canary))
    payload = scope.shared_payload(network)
    assert payload.keys().isdisjoint(scope.keys(Role.PRIVATE))
    assert not any((array == canary).any() for array in payload.values())


def training_changes_what_is_trained_and_nothing_that_is_frozen(method: Method) -> None:
    before = bits(attached(method).state_dict())
    network, scope = trained(method)
    after = bits(network.state_dict())
    changed = {key for key in before if before[key] != after[key]}
    assert changed == set(scope.keys(Role.SHARED)) | set(scope.keys(Role.PRIVATE))


def an_untrained_method_gives_the_backbones_output(method: Method) -> None:
    assert torch.equal(logits(attached(method)), logits(tiny_network()))


def the_same_seed_gives_the_same_bits(method: Method) -> None:
    one, other = trained(method)[0], trained(method)[0]
    assert bits(one.state_dict()) == bits(other.state_dict())


def shared_and_private_parts_make_up_the_model(method: Method) -> None:
    network, scope = trained(method)
    fresh = attached(method, seed=4)
    scope.load_shared(fresh, scope.shared_payload(network))
    scope.load_private(fresh, scope.private_state(network))
    assert torch.equal(logits(fresh), logits(network))


def a_resumed_training_equals_an_uninterrupted_one(method: Method) -> None:
    whole = attached(method)
    train(whole, 4)
    first = attached(method)
    stored = train(first, 2).state_dict()
    scope = method.scope(first)
    second = attached(method, seed=4)
    scope.load_shared(second, scope.shared_payload(first))
    scope.load_private(second, scope.private_state(first))
    optimiser = torch.optim.AdamW([p for p in second.parameters() if p.requires_grad])
    optimiser.load_state_dict(stored)
    train(second, 2, optimiser)
    assert bits(second.state_dict()) == bits(whole.state_dict())


def the_merged_model_gives_the_same_logits_with_the_plain_keys(method: Method) -> None:
    network, _ = trained(method)
    expected = logits(network)
    state = merge_lora(network).state_dict()
    plain = tiny_network(seed=8)
    plain.load_state_dict(state)
    torch.testing.assert_close(logits(plain), expected, rtol=1e-5, atol=1e-5)
    assert (expected - logits(tiny_network())).abs().max() > 1e-2


def merging_twice_is_merging_once(method: Method) -> None:
    network, _ = trained(method)
    once = bits(merge_lora(network).state_dict())
    assert bits(merge_lora(network).state_dict()) == once


def the_model_of_an_unseen_site_depends_on_the_shared_part_alone(method: Method) -> None:
    (one, scope), (other, _) = trained(method), trained(method, seed=4)
    scope.load_shared(other, scope.shared_payload(one))
    contexts = [method.shared_only(network) for network in (one, other)]
    if None in contexts:
        assert any(key in HEAD for key in scope.keys(Role.PRIVATE))
        return
    before = logits(one)
    with contexts[0], contexts[1]:
        assert torch.equal(logits(one), logits(other))
    assert torch.equal(logits(one), before)


def values_that_are_not_finite_neither_leave_nor_enter(method: Method) -> None:
    network, scope = trained(method)
    payload = scope.shared_payload(network)
    before = bits(network.state_dict())
    for key in list(payload)[:3]:
        spoilt = {**payload, key: np.full_like(payload[key], np.nan)}
        with pytest.raises(PrivacyError, match="NaN"):
            scope.load_shared(network, spoilt)
        assert bits(network.state_dict()) == before
    for key in list(payload)[-3:]:
        network.state_dict()[key].view(-1)[0] = float("inf")
        with pytest.raises(PrivacyError, match="infinity"):
            scope.shared_payload(network)


def the_manifest_follows_from_the_architecture_alone(method: Method) -> None:
    with torch.device("meta"):
        network = tiny_network()
        method.attach(network)
    assert method.scope(network).manifest == method.scope(attached(method)).manifest


def its_settings_survive_a_plan_file(method: Method) -> None:
    assert get_method(method.name, through_json(dataclasses.asdict(method))) == method


def it_says_what_it_is(method: Method) -> None:
    assert method.summary
    assert method.source
    assert method.name.isidentifier()


BEHAVIOURS: list[Callable[[Method], None]] = [
    every_tensor_that_trains_is_shared_or_private_and_no_other,
    private_values_never_enter_a_payload,
    training_changes_what_is_trained_and_nothing_that_is_frozen,
    an_untrained_method_gives_the_backbones_output,
    the_same_seed_gives_the_same_bits,
    shared_and_private_parts_make_up_the_model,
    a_resumed_training_equals_an_uninterrupted_one,
    the_merged_model_gives_the_same_logits_with_the_plain_keys,
    merging_twice_is_merging_once,
    the_model_of_an_unseen_site_depends_on_the_shared_part_alone,
    values_that_are_not_finite_neither_leave_nor_enter,
    the_manifest_follows_from_the_architecture_alone,
    its_settings_survive_a_plan_file,
    it_says_what_it_is,
]


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
@pytest.mark.parametrize("name", method_names())
def test_method(name: str, behaviour: Callable[[Method], None]) -> None:
    behaviour(get_method(name))


# ---- the table ------------------------------------------------------------------------------------------


def test_every_registered_method_has_a_row() -> None:
    assert set(EXPECTED) == set(method_names())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_travels_and_what_stays(name: str) -> None:
    method = get_method(name)
    scope = method.scope(attached(method))
    shared, private = EXPECTED[name]
    assert set(scope.keys(Role.SHARED)) == set(scope.manifest.entries) == shared
    assert set(scope.keys(Role.PRIVATE)) == private


@pytest.mark.parametrize("name", ["dual_lora", "fedit"])
def test_a_private_head_stays(name: str) -> None:
    method = get_method(name, {"head": "private"})
    scope = method.scope(attached(method))
    shared, private = EXPECTED[name]
    assert set(scope.keys(Role.SHARED)) == shared - HEAD
    assert set(scope.keys(Role.PRIVATE)) == private | HEAD
    private_values_never_enter_a_payload(method)
    shared_and_private_parts_make_up_the_model(method)
    the_model_of_an_unseen_site_depends_on_the_shared_part_alone(method)


@pytest.mark.parametrize("name", ["dual_lora", "fedit", "local"])
def test_blocks_and_targets_choose_what_trains(name: str) -> None:
    method = get_method(name, {"blocks": 0, "targets": ["attn.q"]})
    scope = method.scope(attached(method))
    adapters = {"dual_lora": ["shared", "private"], "fedit": ["shared"], "local": ["private"]}[name]
    expected = set().union(*(factors(adapter, (0, 1, 2), ("q",)) for adapter in adapters))
    assert set(scope.keys(Role.SHARED)) | set(scope.keys(Role.PRIVATE)) == expected | HEAD


def test_the_model_of_an_unseen_site_is_the_one_without_the_private_adapter() -> None:
    method = get_method("dual_lora")
    network, _ = trained(method)
    expected = logits(merge_lora(trained(method)[0], ("shared",)))
    context = method.shared_only(network)
    assert context is not None
    with context:
        torch.testing.assert_close(logits(network), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(network), expected)


# ---- sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wire", "size"), [("float32", 4), ("float16", 2)])
def test_dual_lora_on_a_768_wide_encoder_sends_61440_adapter_parameters(wire: str, size: int) -> None:
    method = get_method("dual_lora")
    with torch.device("meta"):
        network = convvit("base", out_chans=2)
        method.attach(network)
    manifest = method.scope(network, wire_dtype=wire).manifest
    state = network.state_dict()
    assert sum(state[key].numel() for key in manifest.entries if "lora_" in key) == 61_440
    head = 2 * (768 * 2 + 2)
    assert manifest.nbytes == size * (61_440 + head)


def test_fedavg_on_the_same_encoder_sends_over_a_thousand_times_as_much() -> None:
    sizes = {}
    for name in ("dual_lora", "fedavg"):
        method = get_method(name)
        with torch.device("meta"):
            network = convvit("base", out_chans=2)
            method.attach(network)
        sizes[name] = method.scope(network).manifest.nbytes
    assert sizes["fedavg"] > 1_000 * sizes["dual_lora"]


# ---- a method of one's own ------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[dict[str, Any]]:
    before = dict(base._REGISTRY)
    yield base._REGISTRY
    base._REGISTRY.clear()
    base._REGISTRY.update(before)


def test_a_method_of_a_dozen_lines_runs_through_the_matrix(registry: dict[str, Any]) -> None:
    @register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class ClassTokenHead(Method):
        name = "class_token_head"
        summary = "train the heads, share that of the class token"
        source = "a test"

        def attach(self, network: Any) -> None:
            for key, parameter in network.named_parameters():
                parameter.requires_grad_(key.startswith(network.head_prefixes))

        def is_shared(self, key: str, network: Any) -> bool:
            return ".cls." in key

        def shared_only(self, network: Any) -> None:
            return None

    method = get_method("class_token_head")
    assert "class_token_head" in method_names()
    for behaviour in BEHAVIOURS:
        behaviour(method)


def test_a_method_that_leaks_does_not_get_through_the_matrix(registry: dict[str, Any]) -> None:
    """The matrix itself can fail: claiming the private adapter as shared breaks it."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Leaky(type(get_method("dual_lora"))):  # type: ignore[misc]
        def scope(self, network: Any, *, wire_dtype: str = "float32") -> Scope:
            honest = super().scope(network, wire_dtype=wire_dtype)
            everything = Scope.of(network, lambda key: True, wire_dtype=wire_dtype)
            return Scope(honest.roles, everything.manifest)

    with pytest.raises(AssertionError):
        private_values_never_enter_a_payload(Leaky())


def test_two_methods_of_one_name_are_refused(registry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="dual_lora"):
        register(type(get_method("dual_lora")))


def test_an_adapter_that_is_random_changes_the_output() -> None:
    """Guards the comparisons above against a network that ignores its adapters."""
    network = attached(get_method("dual_lora"))
    randomise(network, "lora_B")
    assert not torch.allclose(logits(network), logits(tiny_network()), atol=1e-3)
