"""What every method owes its sites: one matrix of behaviours over all registered methods and kinds of backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.adapters.image_adapter import attach_image_adapter
from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.adapters.orthogonality import FORMS
from monai_fedlora.adapters.side import attach_side
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.methods import Method, base, get_method, method_names, register
from monai_fedlora.methods.clip_adapter import ClipAdapter
from monai_fedlora.networks.cine_network import VIEW
from monai_fedlora.scope import DOWN, Role, Scope
from tests.helpers import randomise, through_json
from tests.methods.federation import (
    BACKBONES,
    FAMILIES,
    NEED_TEXTS,
    READOUTS,
    Member,
    aggregated,
    alone,
    attached,
    bits,
    families,
    logits,
    trained,
)

TRAINS_NOTHING = ("clip_zero_shot",)


def every_tensor_that_trains_is_shared_or_private_and_no_other(method: Method, family: str) -> None:
    network = attached(method, family)
    scope = method.scope(network)
    trains = {name for name, p in network.named_parameters() if p.requires_grad}
    received = {key for key, entry in scope.manifest.entries.items() if entry.travels == DOWN}
    assert trains.isdisjoint(received)
    assert set(scope.keys(Role.SHARED)) | set(scope.keys(Role.PRIVATE)) == trains | received
    assert set(scope.roles) == set(network.state_dict())
    assert bool(trains) == (method.name not in TRAINS_NOTHING)


def private_values_never_enter_a_payload(method: Method, family: str) -> None:
    member = trained(method, family)
    canary = np.float32(1234.5)
    with torch.no_grad():
        for key in [*member.scope.keys(Role.PRIVATE), *member.scope.keys(Role.FROZEN)]:
            member.network.state_dict()[key].fill_(float(canary))
    for payload in (member.scope.shared_payload(member.network), member.scope.initial_payload(member.network)):
        assert payload.keys().isdisjoint(member.scope.keys(Role.PRIVATE))
        assert not any((array == canary).any() for array in payload.values())


def private_values_never_reach_the_server_by_way_of_the_shared_ones(method: Method, family: str) -> None:
    """What a round sends back depends on private tensors through training alone, not when nothing is learned."""
    one, other = (Member(method, family, learning_rate=0.0, weight_decay=0.0) for _ in range(2))
    with torch.no_grad():
        for key in other.scope.keys(Role.PRIVATE):
            other.network.state_dict()[key].mul_(-2.0)
    shared = one.initial()
    first, second = one.train(0, shared), other.train(0, shared)
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)


def training_changes_what_is_trained_and_nothing_that_is_frozen(method: Method, family: str) -> None:
    member = Member(method, family, cases=8)  # two steps in each half of a round
    member.open(0, member.initial())
    before = bits(member.network.state_dict())
    member.train(0, member.initial())
    after = bits(member.network.state_dict())
    changed = {key for key in before if before[key] != after[key]}
    assert changed == set(member.scope.manifest.up.entries) | set(member.scope.keys(Role.PRIVATE))


def an_untrained_method_gives_the_backbones_output(method: Method, family: str) -> None:
    network = attached(method, family)
    expected = logits(BACKBONES[family].build(), family)
    assert torch.equal(logits(network, family), expected)
    method.begin_round(network, 0)
    assert torch.equal(logits(network, family), expected)


def the_same_seed_gives_the_same_bits(method: Method, family: str) -> None:
    one, other = Member(method, family), trained(method, family).network
    one.train(0, one.initial())
    assert bits(one.network.state_dict()) == bits(other.state_dict())


def a_site_alone_gets_its_own_model_back(method: Method, family: str) -> None:
    """What the server sends next and what the site kept make up the model that the site trained."""
    member = Member(method, family)
    shared = alone(member, 0, member.initial())
    fresh = Member(method, family, seed=4)
    fresh.scope.load_private(fresh.network, member.scope.private_state(member.network))
    fresh.open(1, shared)
    torch.testing.assert_close(logits(fresh.network, family), logits(member.network, family), rtol=1e-5, atol=1e-5)


def a_resumed_training_equals_an_uninterrupted_one(method: Method, family: str) -> None:
    whole = Member(method, family)
    after_one = alone(whole, 0, whole.initial())
    stored = whole.stored()
    after_two = alone(whole, 1, after_one)
    resumed = Member(method, family)
    with torch.no_grad():
        for parameter in resumed.network.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)  # a new process knows nothing of what it does not load
    resumed.restore(stored)
    again = alone(resumed, 1, after_one)
    assert all(again[key].tobytes() == after_two[key].tobytes() for key in after_two)
    assert bits(resumed.network.state_dict()) == bits(whole.network.state_dict())


def a_round_leaves_the_personal_model_in_view(method: Method, family: str) -> None:
    member = trained(method, family)
    fresh = attached(method, family, seed=4)
    fresh.load_state_dict(member.network.state_dict())
    assert torch.equal(logits(fresh, family), logits(member.network, family))


def merged_into_plain(method: Method, network: Any, family: str) -> Any:
    """A network without anything that merging takes away, with the merged values."""
    plain = BACKBONES[family].build(seed=8)
    if network.side is not None:
        attach_side(plain, network.side.settings)
    if isinstance(method, ClipAdapter):
        attach_image_adapter(plain, method.adapter)
    plain.load_state_dict(merge_lora(network).state_dict())
    return plain


def the_merged_model_gives_the_same_logits_with_the_plain_keys(method: Method, family: str) -> None:
    network = trained(method, family).network
    expected = logits(network, family)
    plain = merged_into_plain(method, network, family)
    torch.testing.assert_close(logits(plain, family), expected, rtol=1e-5, atol=1e-5)
    moved = (expected - logits(BACKBONES[family].build(), family)).abs().max()
    assert (moved == 0) if method.name in TRAINS_NOTHING else (moved > 1e-3)


def the_merged_shared_model_gives_the_same_logits_with_the_plain_keys(method: Method, family: str) -> None:
    network = trained(method, family).network
    context = method.shared_only(network)
    if context is not None:
        with context:
            expected = logits(network, family)
            plain = merged_into_plain(method, network, family)
        torch.testing.assert_close(logits(plain, family), expected, rtol=1e-5, atol=1e-5)


def merging_twice_is_merging_once(method: Method, family: str) -> None:
    network = trained(method, family).network
    once = bits(merge_lora(network).state_dict())
    assert bits(merge_lora(network).state_dict()) == once


def the_model_of_an_unseen_site_depends_on_the_shared_part_alone(method: Method, family: str) -> None:
    one, other = trained(method, family), trained(method, family, seed=4)
    if method.shared_only(one.network) is None:
        assert one.scope.keys(Role.PRIVATE)
        return
    update = one.scope.shared_payload(one.network)
    shared = aggregated(method, one.scope, {"only": (1, update)}, one.scope.initial_payload(one.network))
    for site in (one, other):
        site.scope.load_shared(site.network, shared)
        method.begin_round(site.network, 1)
    contexts = [method.shared_only(site.network) for site in (one, other)]
    before = logits(one.network, family)
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)  # type: ignore[arg-type]
        assert torch.equal(logits(one.network, family), logits(other.network, family))
    assert torch.equal(logits(one.network, family), before)


def values_that_are_not_finite_neither_leave_nor_enter(method: Method, family: str) -> None:
    member = trained(method, family)
    network, scope = member.network, member.scope
    received = scope.initial_payload(network)
    before = bits(network.state_dict())
    for key in list(received)[:3]:
        spoilt = {**received, key: np.full_like(received[key], np.nan)}
        with pytest.raises(PrivacyError, match="NaN"):
            scope.load_shared(network, spoilt)
        assert bits(network.state_dict()) == before
    for key in list(scope.manifest.up.entries)[-3:]:
        network.state_dict()[key].view(-1)[0] = float("inf")
        with pytest.raises(PrivacyError, match="infinity"):
            scope.shared_payload(network)


def the_manifest_follows_from_the_architecture_alone(method: Method, family: str) -> None:
    with torch.device("meta"):
        network = BACKBONES[family].build()
        method.attach(network)
    assert method.scope(network).manifest == method.scope(attached(method, family)).manifest


def its_settings_survive_a_plan_file(method: Method, family: str) -> None:
    for settings in (method, method.for_site(1)):
        assert get_method(method.name, through_json(dataclasses.asdict(settings))) == settings


def it_says_what_it_is(method: Method, family: str) -> None:
    assert method.summary
    assert method.source
    assert method.name.isidentifier()
    assert type(method).__doc__


BEHAVIOURS: list[Callable[[Method, str], None]] = [
    every_tensor_that_trains_is_shared_or_private_and_no_other,
    private_values_never_enter_a_payload,
    private_values_never_reach_the_server_by_way_of_the_shared_ones,
    training_changes_what_is_trained_and_nothing_that_is_frozen,
    an_untrained_method_gives_the_backbones_output,
    the_same_seed_gives_the_same_bits,
    a_site_alone_gets_its_own_model_back,
    a_resumed_training_equals_an_uninterrupted_one,
    a_round_leaves_the_personal_model_in_view,
    the_merged_model_gives_the_same_logits_with_the_plain_keys,
    the_merged_shared_model_gives_the_same_logits_with_the_plain_keys,
    merging_twice_is_merging_once,
    the_model_of_an_unseen_site_depends_on_the_shared_part_alone,
    values_that_are_not_finite_neither_leave_nor_enter,
    the_manifest_follows_from_the_architecture_alone,
    its_settings_survive_a_plan_file,
    it_says_what_it_is,
]


def matrix() -> Iterator[Any]:
    """Every behaviour of every method on every family; in the fast tests on one family, which take turns."""
    for row, name in enumerate(method_names()):
        found = families(name)
        for column, behaviour in enumerate(BEHAVIOURS):
            for number, family in enumerate(found):
                marks = () if number == (row + column) % len(found) else (pytest.mark.slow,)
                yield pytest.param(name, family, behaviour, marks=marks, id=f"{name}-{family}-{behaviour.__name__}")


@pytest.mark.parametrize(("name", "family", "behaviour"), matrix())
def test_method(name: str, family: str, behaviour: Callable[[Method, str], None]) -> None:
    behaviour(get_method(name), family)


# Settings that make another method of it, and what could come out otherwise for it.
VARIANTS: dict[str, dict[str, Any]] = {
    "dual_lora-private-head": {"head": "private"},
    "fedit-product": {"averaging": "product"},
    "fedprox-everything": {"trains": "everything"},
    "fedprox-everything-private-head": {"trains": "everything", "head": "private"},
    "fedper-everything": {"trains": "everything"},
    "fedrep-everything": {"trains": "everything"},
    "feddpa-private-head": {"head": "private"},
    "feddpa-local-alone": {"mix": 1.0},
    "ditto-product": {"averaging": "product"},
    "flexlora-ranks": {"ranks": [2, 5]},
    "flora-ranks": {"ranks": [2, 5], "a_seed": 7},
    "fedopal-product": {"averaging": "product"},
    "pfedst-linear": {"classifier": "linear"},
    "pfedst-alternate": {"classifier": "linear", "schedule": "alternate"},
    "pfedst-private_after": {"schedule": "private_after", "private_share": 0.25},
    "pfedst-taps": {"taps": [0, 2], "width": 6, "heads": 2},
    "clip_adapter-residual": {"form": "residual", "reduction": 3, "ratio": 0.5},
    "prompt_tuning-fewer-words": {"vectors": 2},
}
VARIABLE: list[Callable[[Method, str], None]] = [
    private_values_never_enter_a_payload,
    training_changes_what_is_trained_and_nothing_that_is_frozen,
    an_untrained_method_gives_the_backbones_output,
    a_site_alone_gets_its_own_model_back,
    a_resumed_training_equals_an_uninterrupted_one,
    the_merged_model_gives_the_same_logits_with_the_plain_keys,
    the_merged_shared_model_gives_the_same_logits_with_the_plain_keys,
    the_model_of_an_unseen_site_depends_on_the_shared_part_alone,
    its_settings_survive_a_plan_file,
]


def by_halves() -> Iterator[Any]:
    """Every behaviour of every variant; in the fast tests every second one."""
    for row, variant in enumerate(VARIANTS):
        for column, behaviour in enumerate(VARIABLE):
            marks = pytest.mark.slow if (row + column) % 2 else ()
            yield pytest.param(variant, behaviour, marks=marks, id=f"{variant}-{behaviour.__name__}")


@pytest.mark.parametrize(("variant", "behaviour"), by_halves())
def test_variant(variant: str, behaviour: Callable[[Method, str], None]) -> None:
    name = variant.partition("-")[0]
    behaviour(get_method(name, VARIANTS[variant]), families(name)[-1])


# What a method's documentation offers beside its defaults.
DOCUMENTED: dict[str, dict[str, Any]] = {
    **VARIANTS,
    **{f"fedopal-{form}": {"orthogonality": form} for form in FORMS},
    "fedopal-R-stop": {"orthogonality": "R", "stop_gradient": "shared"},
    "fedopal-R-private-head": {"orthogonality": "R", "head": "private"},
    "fedopal-R-every-layer": {"orthogonality": "R", "targets": ["q", "k", "v", "proj", "fc1", "fc2"], "dropout": 0.1},
    "fedopal-W2-stop": {"orthogonality": "W2", "stop_gradient": "shared", "targets": ["fc1", "fc2"]},
    "dual_lora-targets": {"targets": ["k", "proj", "fc1"]},
    "dual_lora-blocks": {"blocks": 0, "dropout": 0.1},
    "dual_lora-product": {"averaging": "product"},
    "feddpa-shared-alone": {"mix": 0.0, "private_share": 0.25},
    "fedrep-shares": {"head_share": 0.25},
    "ditto-weight": {"mu": 0.0},
    "fedprox-adapters": {"mu": 0.5, "targets": ["fc1"]},
    "fedsa_lora-blocks": {"blocks": 0},
    "pfedst-joint": {"schedule": "joint", "rank": 2},
    "prompt_tuning-random": {"start": "random"},
}
UNREAD: dict[str, tuple[str, ...]] = {"convvit-cls": ("enc_fusion_dict.", f"pred_head_dict.{VIEW}.")}
"""What the keys of weights begin with that a readout leaves out."""


def readouts(name: str, settings: dict[str, Any]) -> list[str]:
    """What a variant runs on; where texts are read, that is one."""
    if name in NEED_TEXTS or (name == "pfedst" and settings.get("classifier") != "linear"):
        return ["clip"]
    return list(READOUTS)


def in_turn() -> Iterator[Any]:
    """Every variant on every readout; in the fast tests each variant on one, which take turns."""
    for place, (variant, settings) in enumerate(DOCUMENTED.items()):
        found = readouts(variant.partition("-")[0], settings)
        for number, readout in enumerate(found):
            marks = () if number == place % len(found) else (pytest.mark.slow,)
            yield pytest.param(variant, readout, marks=marks)


@pytest.mark.parametrize(("variant", "readout"), in_turn())
def test_every_documented_variant_trains_goes_on_and_merges_with_every_readout(variant: str, readout: str) -> None:
    method = get_method(variant.partition("-")[0], DOCUMENTED[variant])
    member = Member(method, readout, cases=8 if method.phases(None) else 4)  # two steps, or two of each phase
    before = bits(member.network.state_dict())
    shared = alone(member, 0, member.initial())
    trains = set(member.scope.manifest.up.entries) | set(member.scope.keys(Role.PRIVATE))
    read = {key for key in trains if not key.startswith(UNREAD.get(readout, ()))}
    after = member.network.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert read <= {key for key, value in bits(after).items() if value != before[key]} <= trains

    stored = member.stored()
    member.open(1, shared)
    expected = logits(member.network, readout)
    with torch.no_grad():
        for key in trains:
            member.network.state_dict()[key].add_(1.0)
    member.restore(stored)
    member.open(1, shared)
    assert torch.equal(logits(member.network, readout), expected)
    plain = merged_into_plain(method, member.network, readout)
    torch.testing.assert_close(logits(plain, readout), expected, rtol=1e-5, atol=1e-5)


# ---- a method of one's own ------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[dict[str, Any]]:
    before = dict(base._REGISTRY)
    yield base._REGISTRY
    base._REGISTRY.clear()
    base._REGISTRY.update(before)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_method_of_a_dozen_lines_runs_through_the_matrix(registry: dict[str, Any], family: str) -> None:
    @register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Biases(Method):
        """Fewer than 20 lines are a method."""

        name = "biases"
        summary = "train head and biases, share the biases"
        source = "a test"

        def attach(self, network: Any) -> None:
            for key, parameter in network.named_parameters():
                parameter.requires_grad_(key.startswith(network.head_prefixes) or key.endswith("norm1.bias"))

        def is_shared(self, key: str, network: Any) -> bool:
            return not key.startswith(network.head_prefixes)

        def shared_only(self, network: Any) -> None:
            return None

    assert "biases" in method_names()
    for behaviour in BEHAVIOURS:
        behaviour(get_method("biases"), family)


def test_a_method_that_leaks_does_not_get_through_the_matrix(registry: dict[str, Any]) -> None:
    """The matrix itself can fail: claiming the private adapter as shared breaks it."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Leaky(type(get_method("dual_lora"))):  # type: ignore[misc]
        def scope(self, network: Any, *, wire_dtype: str = "float32") -> Scope:
            honest = super().scope(network, wire_dtype=wire_dtype)
            everything = Scope.of(network, lambda key: True, wire_dtype=wire_dtype)
            return Scope(honest.roles, everything.manifest)

    with pytest.raises(AssertionError):
        private_values_never_enter_a_payload(Leaky(), "convvit")


def test_two_methods_of_one_name_are_refused(registry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="dual_lora"):
        register(type(get_method("dual_lora")))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_that_is_random_changes_the_output(family: str) -> None:
    """Guards the comparisons above against a network that ignores its adapters."""
    network = attached(get_method("dual_lora"), family)
    randomise(network, "lora_B")
    assert not torch.allclose(logits(network, family), logits(BACKBONES[family].build(), family), atol=1e-3)
