"""FedProx, FedBN, FedPer, FedRep, Ditto and FedDPA do what sets them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from monai_fedlora.adapters.active_adapters import with_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, attach_lora, merge_lora
from monai_fedlora.methods import get_method
from monai_fedlora.scope import Role
from tests.methods.federation import (
    FAMILIES,
    Member,
    Payload,
    aggregated,
    attached,
    bits,
    disturbed,
    logits,
    run_federation,
    watched,
)


def distance(member: Member, start: dict[str, torch.Tensor], part: str = "") -> float:
    """From ``start``, over the trained parameters whose name holds ``part``."""
    named = member.network.named_parameters()
    squares = [(p - start[name]).square().sum().item() for name, p in named if p.requires_grad and part in name]
    return sum(squares) ** 0.5


def copied(network: Any) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


# ---- FedProx --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", ["adapters", "everything"])
def test_the_proximal_term_is_half_mu_times_the_squared_distance_to_what_the_server_sent(trains: str) -> None:
    method = get_method("fedprox", {"mu": 0.3, "trains": trains})
    network = attached(method)
    start = copied(network)
    context = method.penalty(network)
    assert context is not None
    with context as penalty:
        assert penalty().item() == 0
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        value = penalty()
        value.backward()
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    expected = 0.15 * sum((p - start[name]).square().sum() for name, p in named)
    torch.testing.assert_close(value, expected)
    for name, p in named:
        torch.testing.assert_close(p.grad, 0.3 * (p.detach() - start[name]))


def test_a_private_head_is_not_pulled() -> None:
    method = get_method("fedprox", {"mu": 0.3, "head": "private"})
    network = attached(method, "vit")
    context = method.penalty(network)
    assert context is not None
    with context as penalty:
        penalty().backward()
    assert {name for name, p in network.named_parameters() if p.grad is None and p.requires_grad} == {
        "head.weight",
        "head.bias",
    }


def test_a_strong_pull_keeps_a_site_near_the_server() -> None:
    moved = {}
    for mu in (0.0, 0.01, 100.0):
        member = Member(get_method("fedprox", {"mu": mu}), "vit", weight_decay=0.0)
        start = copied(member.network)
        member.train(0, member.initial())
        moved[mu] = distance(member, start)
    assert moved[100.0] < 0.7 * moved[0.01]
    assert moved[0.01] != moved[0.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "other"), [({}, "fedit"), ({"trains": "everything"}, "fedavg")], ids=["adapters", "everything"]
)
def test_without_a_pull_fedprox_is_plain_averaging(settings: dict[str, str], other: str) -> None:
    one = run_federation(get_method("fedprox", {"mu": 0.0, **settings}), "vit", cases=(4, 6))[1]
    two = run_federation(get_method(other), "vit", cases=(4, 6))[1]
    assert all(one[key].tobytes() == two[key].tobytes() for key in two)


# ---- FedBN ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_differ_in_their_norms_and_in_nothing_else(family: str) -> None:
    (one, other), _ = run_federation(get_method("fedbn"), family, cases=(4, 4))
    states = bits(one.network.state_dict()), bits(other.network.state_dict())
    different = {key for key in states[0] if states[0][key] != states[1][key]}
    assert different == set(one.scope.keys(Role.PRIVATE))
    assert all("norm" in key for key in different)


def test_every_kind_of_normalisation_stays() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.GroupNorm(2, 4), torch.nn.Linear(4, 2)
    )
    network.append(torch.nn.InstanceNorm1d(4, affine=True)).append(torch.nn.LayerNorm(4))
    method = get_method("fedbn")
    method.attach(network)
    assert method.scope(network).keys(Role.PRIVATE) == [
        f"{i}.{leaf}" for i in (1, 2, 4, 5) for leaf in ("bias", "weight")
    ]


# ---- FedPer and FedRep ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fedper", "fedrep"])
def test_sites_differ_in_their_heads_and_in_nothing_else(name: str) -> None:
    (one, other), _ = run_federation(get_method(name), "vit", cases=(4, 4))
    states = bits(one.network.state_dict()), bits(other.network.state_dict())
    assert {key for key in states[0] if states[0][key] != states[1][key]} == {"head.weight", "head.bias"}


@pytest.mark.parametrize(("share", "head_steps"), [(0.5, 2), (0.75, 3), (0.01, 1), (0.99, 3)])
@pytest.mark.parametrize("trains", ["adapters", "everything"])
def test_the_head_trains_before_the_base(share: float, head_steps: int, trains: str) -> None:
    method = get_method("fedrep", {"head_share": share, "trains": trains})
    member = Member(method, "vit", cases=8)
    log = watched(member)
    member.train(0, member.initial())
    head = {name for name, _ in member.network.named_parameters() if name.startswith("head.")}
    base = {name for name, p in member.network.named_parameters() if p.requires_grad} - head
    assert [bool(moved & head) for moved in log] == [True] * head_steps + [False] * (4 - head_steps)
    assert [bool(moved & base) for moved in log] == [False] * head_steps + [True] * (4 - head_steps)


# ---- Ditto ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ditto", "feddpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_site_sends_does_not_depend_on_its_private_part(name: str, family: str) -> None:
    """The global model trains as if the personal one did not exist; dual LoRA, in contrast, trains them together."""

    def sent(method: str, change: Callable[[Member], Any]) -> Payload:
        member = Member(get_method(method), family, cases=4)
        shared = member.train(0, member.initial())
        change(member)
        return member.train(1, shared)

    undisturbed, otherwise = sent(name, lambda m: m), sent(name, lambda m: disturbed(m, ".private."))
    assert all(undisturbed[key].tobytes() == otherwise[key].tobytes() for key in undisturbed)
    undisturbed, otherwise = sent("dual_lora", lambda m: m), sent("dual_lora", lambda m: disturbed(m, ".private."))
    assert any(undisturbed[key].tobytes() != otherwise[key].tobytes() for key in undisturbed)


@pytest.mark.parametrize("family", FAMILIES)
def test_dittos_models_train_one_after_the_other(family: str) -> None:
    member = Member(get_method("ditto"), family, cases=8)
    log = watched(member)
    member.train(0, member.initial())
    trains = {name for name, p in member.network.named_parameters() if p.requires_grad}
    private = {name for name in trains if ".private." in name}
    assert log == [trains - private] * 2 + [private] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_dittos_personal_model_is_its_own_adapter_and_head_alone(family: str) -> None:
    (one, other), _ = run_federation(get_method("ditto"), family, cases=(4, 6))
    before = logits(one.network, family)
    disturbed(one, ".shared.")
    assert torch.equal(logits(one.network, family), before)
    disturbed(one, ".private.")
    assert not torch.equal(logits(one.network, family), before)
    assert not torch.equal(logits(other.network, family), before)


def test_dittos_global_model_is_the_shared_adapter_and_head_alone() -> None:
    method = get_method("ditto")
    (one, other), _ = run_federation(method, "vit", cases=(4, 6))
    with method.shared_only(one.network), method.shared_only(other.network):  # type: ignore[union-attr]
        assert torch.equal(logits(one.network, "vit"), logits(other.network, "vit"))


def test_dittos_personal_model_starts_at_the_global_one() -> None:
    method = get_method("ditto")
    server, member = Member(method, "vit", seed=1), Member(method, "vit", seed=2)
    member.open(0, server.initial())
    state = member.network.state_dict()
    private = [key for key in state if ".private." in key]
    assert private
    assert all(torch.equal(state[key], state[key.replace(".private.", ".shared.")]) for key in private)
    disturbed(member, ".private.")
    later = copied(member.network)
    member.open(1, server.initial())
    assert all(torch.equal(member.network.state_dict()[key], later[key]) for key in private)


def test_ditto_pulls_the_personal_model_to_what_the_server_sent() -> None:
    """Not to where the global model has moved to in the meantime."""
    method = get_method("ditto", {"mu": 0.4})
    network = attached(method, "vit")
    method.begin_round(network, 0)
    sent = copied(network)
    context = method.penalty(network)
    assert context is not None
    with context as penalty:
        assert penalty().item() == 0
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        value = penalty()
        value.backward()
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    private = {name: p for name, p in named.items() if ".private." in name}
    place = {name: sent[name.replace(".private.", ".shared.")] for name in private}
    torch.testing.assert_close(value, 0.2 * sum((p - place[name]).square().sum() for name, p in private.items()))
    assert all(p.grad is None for name, p in named.items() if name not in private)


def test_a_strong_pull_keeps_dittos_personal_model_near() -> None:
    moved = {}
    for mu in (0.0, 100.0):
        member = Member(get_method("ditto", {"mu": mu}), "vit", cases=8, weight_decay=0.0)
        member.open(0, member.initial())
        start = copied(member.network)
        member.train(0, member.initial())
        moved[mu] = distance(member, start, ".private.")
    assert moved[100.0] < 0.8 * moved[0.0]


# ---- FedDPA ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_feddpa_mixes_the_adapters(family: str, mix: float) -> None:
    method = get_method("feddpa", {"mix": mix})
    network = disturbed(Member(method, family), "lora_B").network
    plain = FAMILIES[family].build()
    attach_lora(plain, LoraSettings(), (SHARED, PRIVATE))
    plain.load_state_dict(network.state_dict())
    with with_weights(plain, {SHARED: 1 - mix, PRIVATE: mix}):
        torch.testing.assert_close(logits(network, family), logits(merge_lora(plain), family), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("index", "adapter"), enumerate((SHARED, PRIVATE)))
def test_each_of_feddpas_adapters_trains_as_if_it_were_alone(index: int, adapter: str) -> None:
    method = get_method("feddpa")
    network = disturbed(Member(method, "vit"), "lora_B").network
    plain = FAMILIES["vit"].build()
    attach_lora(plain, LoraSettings(), (adapter,))
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if key in plain.state_dict()})
    with method.phases(network)[index].view():
        torch.testing.assert_close(logits(network, "vit"), logits(plain, "vit"), rtol=1e-6, atol=1e-6)


def test_feddpas_adapters_train_one_after_the_other() -> None:
    for head in ("shared", "private"):
        member = Member(get_method("feddpa", {"head": head}), "vit", cases=8)
        log = watched(member)
        member.train(0, member.initial())
        adapter = {a: {n for n, _ in member.network.named_parameters() if f".{a}." in n} for a in (SHARED, PRIVATE)}
        heads = {"head.weight", "head.bias"}
        assert log == [adapter[SHARED] | heads] * 2 + [adapter[PRIVATE] | (heads if head == "private" else set())] * 2


def test_feddpas_model_for_an_unseen_site_has_the_whole_shared_adapter() -> None:
    method = get_method("feddpa")
    network = disturbed(Member(method, "vit"), "lora_B").network
    alone = attached(get_method("fedit"), "vit")
    alone.load_state_dict({key: value for key, value in network.state_dict().items() if ".private." not in key})
    context = method.shared_only(network)
    assert context is not None
    with context:
        torch.testing.assert_close(logits(network, "vit"), logits(alone, "vit"), rtol=1e-6, atol=1e-6)


# ---- all of them ----------------------------------------------------------------------------------------


def test_a_round_is_weighted_by_cases() -> None:
    method = get_method("ditto")
    members = [Member(method, "vit", seed=seed, cases=4) for seed in (1, 2)]
    shared = members[0].initial()
    sent = [member.train(0, shared) for member in members]
    combined = aggregated(method, members[0].scope, {"a": (30, sent[0]), "b": (10, sent[1])}, shared)
    for key, value in combined.items():
        torch.testing.assert_close(
            torch.from_numpy(value), torch.from_numpy(0.75 * sent[0][key] + 0.25 * sent[1][key]), rtol=1e-5, atol=1e-7
        )
