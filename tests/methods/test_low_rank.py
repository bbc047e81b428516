"""FFA-LoRA, FedSVD, FedSA-LoRA, FLoRA, FedEx-LoRA, FlexLoRA and averaged products do what sets them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.adapters.lora import SHARED, lora_layers
from monai_fedlora.methods import get_method
from monai_fedlora.scope import Role
from tests.methods.federation import (
    FAMILIES,
    Member,
    Payload,
    aggregated,
    alone,
    attached,
    bits,
    logits,
    run_federation,
)

SCALE = 16 / 8


def factors(member: Member, which: str) -> dict[str, np.ndarray]:
    """A or B of every adapted layer, in double precision."""
    layers = lora_layers(member.network)
    return {
        name: getattr(layer, f"lora_{which}")[SHARED].weight.detach().double().numpy() for name, layer in layers.items()
    }


def products(member: Member) -> dict[str, np.ndarray]:
    a, b = factors(member, "A"), factors(member, "B")
    return {name: b[name] @ a[name] for name in a}


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def two_sites(name: str, family: str = "vit", **settings: Any) -> tuple[list[Member], Payload, Payload]:
    """Sites after their second round, what they had received, and what the server makes of it for 1 : 3 cases."""
    method = get_method(name, settings)
    members = [Member(method.for_site(index), family, seed=10 + index, cases=4) for index in range(2)]
    shared = Member(method, family, seed=1).initial()
    for _ in range(2):
        received = shared
        sent = {f"site-{index}": (1 + 2 * index, member.train(0, received)) for index, member in enumerate(members)}
        shared = aggregated(method, members[0].scope, sent, received)
    return members, received, shared


def receiver(name: str, shared: Payload, family: str = "vit", number: int = 2, **settings: Any) -> Member:
    member = Member(get_method(name, settings), family, seed=99)
    member.open(number, shared)
    return member


# ---- products -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedit", "dual_lora", "ditto", "feddpa", "fedper", "fedrep", "fedprox", "fedopal"])
def test_any_method_of_two_shared_factors_can_average_their_product(name: str) -> None:
    """Rank 24 is that of the layers, so that nothing is cut off; single precision is left as the only error."""
    members, _, shared = two_sites(name, averaging="product", rank=24)
    for layer, found in products(receiver(name, shared, averaging="product", rank=24)).items():
        expected = 0.25 * products(members[0])[layer] + 0.75 * products(members[1])[layer]
        assert relative_error(found, expected) < 1e-6


def test_averaging_factors_apart_averages_another_product() -> None:
    members, _, shared = two_sites("fedit", rank=24)
    worst = max(
        relative_error(found, 0.25 * products(members[0])[layer] + 0.75 * products(members[1])[layer])
        for layer, found in products(receiver("fedit", shared, rank=24)).items()
    )
    assert worst > 1e-2


def test_the_rest_is_averaged_as_ever() -> None:
    members, _, shared = two_sites("fedit", averaging="product")
    heads = [member.network.head.weight.detach().numpy() for member in members]
    np.testing.assert_allclose(shared["head.weight"], 0.25 * heads[0] + 0.75 * heads[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "forgets"),
    [
        ("fedit", {}, False),
        ("fedit", {"averaging": "product"}, True),
        ("dual_lora", {"averaging": "product"}, True),
        ("flexlora", {}, True),
        ("flora", {}, True),
        ("ffa_lora", {}, False),
        ("fedex_lora", {}, False),
    ],
)
def test_momentum_is_kept_where_factors_go_on_and_dropped_where_they_start_over(
    name: str, settings: dict[str, str], forgets: bool
) -> None:
    member = Member(get_method(name, settings), "vit")
    shared = alone(member, 0, member.initial())
    member.open(1, shared)
    kept = {key for key, p in member.network.named_parameters() if p in member.optimiser.state}
    trains = {key for key, p in member.network.named_parameters() if p.requires_grad}
    assert kept == {key for key in trains if not (forgets and f".{SHARED}." in key)}


# ---- FFA-LoRA -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_end_has_the_same_a_and_never_sends_it(family: str) -> None:
    members, _, shared = two_sites("ffa_lora", family)
    server = Member(get_method("ffa_lora"), family, seed=1)
    other_seed = Member(get_method("ffa_lora", {"a_seed": 1}), family, seed=1)
    for layer, a in factors(server, "A").items():
        assert all(np.array_equal(a, factors(member, "A")[layer]) for member in members)
        assert not np.array_equal(a, factors(other_seed, "A")[layer])
    assert len({a.tobytes() for a in factors(server, "A").values()}) == len(factors(server, "A"))
    assert not any("lora_A" in key for key in shared)


def test_averaging_b_alone_averages_the_product() -> None:
    members, _, shared = two_sites("ffa_lora")
    for layer, found in products(receiver("ffa_lora", shared)).items():
        expected = 0.25 * products(members[0])[layer] + 0.75 * products(members[1])[layer]
        assert relative_error(found, expected) < 1e-6


def test_the_dropout_of_an_adapter_with_a_frozen_a_is_on_in_training() -> None:
    seen = {}
    for dropout in (0.0, 0.5):
        member = Member(get_method("ffa_lora", {"dropout": dropout}), "vit")
        seen[dropout] = member.train(0, member.initial())
    assert any(seen[0.0][key].tobytes() != seen[0.5][key].tobytes() for key in seen[0.0])


# ---- FedSVD ---------------------------------------------------------------------------------------------


def test_the_momentum_of_b_alone_is_dropped_where_a_is_made_orthonormal() -> None:
    member = Member(get_method("fedsvd"), "vit")
    member.open(1, alone(member, 0, member.initial()))
    kept = {key for key, p in member.network.named_parameters() if p in member.optimiser.state}
    assert kept == {"head.weight", "head.bias"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_servers_decomposition_has_the_mean_product_and_orthonormal_rows(family: str) -> None:
    members, _, shared = two_sites("fedsvd", family)
    found = receiver("fedsvd", shared, family)
    a, b = factors(found, "A"), factors(found, "B")
    for layer, product in products(found).items():
        expected = 0.25 * products(members[0])[layer] + 0.75 * products(members[1])[layer]
        assert relative_error(product, expected) < 1e-6
        np.testing.assert_allclose(a[layer] @ a[layer].T, np.eye(8), atol=1e-6)
        singular = np.linalg.svd(expected, compute_uv=False)[:8]
        np.testing.assert_allclose(b[layer].T @ b[layer], np.diag(singular**2), atol=1e-5 * singular[0] ** 2)


def test_every_a_has_the_span_of_the_first_one() -> None:
    """A property of the method: the rows of B A are combinations of the rows of A."""
    _, _, shared = two_sites("fedsvd")
    first, last = factors(Member(get_method("fedsvd"), "vit", seed=1), "A"), factors(receiver("fedsvd", shared), "A")
    for layer, a in last.items():
        basis = np.linalg.qr(first[layer].T)[0]
        np.testing.assert_allclose(a @ basis @ basis.T, a, atol=1e-6)
        assert not np.allclose(np.abs(a), np.abs(basis.T), atol=1e-2)


def test_a_site_moves_b_and_never_a() -> None:
    member = Member(get_method("fedsvd"), "vit")
    before = factors(member, "A")
    sent = member.train(0, member.initial())
    assert not any("lora_A" in key for key in sent)
    assert all(np.array_equal(before[layer], a) for layer, a in factors(member, "A").items())
    assert all(b.any() for b in factors(member, "B").values())


# ---- FedSA-LoRA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_have_a_in_common_and_b_and_the_head_for_themselves(family: str) -> None:
    (one, other), _ = run_federation(get_method("fedsa_lora"), family, cases=(4, 4))
    states = bits(one.network.state_dict()), bits(other.network.state_dict())
    different = {key for key in states[0] if states[0][key] != states[1][key]}
    assert different == set(one.scope.keys(Role.PRIVATE))
    assert all(one.network.state_dict()[key].any() for key in different)


# ---- FLoRA ----------------------------------------------------------------------------------------------


def dense(payload: Payload) -> dict[str, np.ndarray]:
    suffix = ".base_layer.lora_delta"
    return {key.removesuffix(suffix): value for key, value in payload.items() if key.endswith(suffix)}


@pytest.mark.parametrize("ranks", [[], [2, 7]])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_server_adds_the_scaled_products_exactly(family: str, ranks: list[int]) -> None:
    members, received, shared = two_sites("flora", family, ranks=ranks)
    before, after = dense(received), dense(shared)
    assert set(after) == set(lora_layers(members[0].network))
    for layer, value in after.items():
        added = 0.25 * products(members[0])[layer] + 0.75 * products(members[1])[layer]
        assert before[layer].any()
        assert relative_error(value, before[layer] + SCALE * added) < 1e-6


def test_a_round_starts_with_a_fresh_adapter_without_effect() -> None:
    members, _, shared = two_sites("flora")
    trained = factors(members[0], "A")
    members[0].open(2, shared)
    again, third = receiver("flora", shared, number=2), receiver("flora", shared, number=3)
    for layer, a in factors(members[0], "A").items():
        assert not np.array_equal(a, trained[layer])
        assert np.array_equal(a, factors(again, "A")[layer])
        assert not np.array_equal(a, factors(third, "A")[layer])
        assert not factors(members[0], "B")[layer].any()


@pytest.mark.parametrize("name", ["flora", "fedex_lora", "fedsvd"])
def test_a_site_that_missed_rounds_has_the_same_model_from_the_last_message_alone(name: str) -> None:
    members, _, shared = two_sites(name)
    late = receiver(name, shared)
    members[0].open(2, shared)
    assert torch.equal(logits(late.network, "vit"), logits(members[0].network, "vit"))
    assert not torch.equal(logits(late.network, "vit"), logits(attached(get_method(name), "vit"), "vit"))


# ---- FedEx-LoRA -----------------------------------------------------------------------------------------


def weights(member: Member) -> dict[str, np.ndarray]:
    """W0 + D + s B A of every adapted layer."""
    bases = {name: layer.get_base_layer() for name, layer in lora_layers(member.network).items()}
    return {
        name: bases[name].weight.double().numpy() + bases[name].lora_delta.double().numpy() + SCALE * product
        for name, product in products(member).items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_that_sites_go_on_from_is_the_mean_of_theirs(family: str) -> None:
    members, received, shared = two_sites("fedex_lora", family)
    assert all(value.any() for value in dense(received).values())
    found = receiver("fedex_lora", shared, family)
    for layer, value in weights(found).items():
        expected = 0.25 * weights(members[0])[layer] + 0.75 * weights(members[1])[layer]
        assert relative_error(value, expected) < 1e-7
    for which in "AB":
        for layer, value in factors(found, which).items():
            expected = 0.25 * factors(members[0], which)[layer] + 0.75 * factors(members[1], which)[layer]
            assert relative_error(value, expected) < 1e-6


def test_a_site_alone_leaves_the_frozen_layer_as_it_is() -> None:
    member = Member(get_method("fedex_lora"), "vit")
    shared = alone(member, 0, member.initial())
    assert max(np.abs(value).max() for value in dense(shared).values()) < 1e-8


def test_factors_rounded_on_the_wire_are_made_good_in_the_layer() -> None:
    """What is left is the rounding of the dense update, which is far smaller than the factors."""
    method = get_method("fedex_lora")
    members = [Member(method, "vit", seed=10 + index) for index in range(2)]
    start = members[0].initial()
    tensors = [member.train(0, start) for member in members]
    exact = method.scope(members[0].network).manifest
    half = method.scope(members[0].network, wire_dtype="float16").manifest
    updates = list(zip((0.25, 0.75), tensors, strict=True))
    for manifest, tolerance in ((exact, 1e-7), (half, 1e-3)):
        down = manifest.down.entries
        sent = {
            key: np.array(value, dtype=down[key].dtype).astype(np.float64)
            for key, value in method.aggregate(updates, start, manifest).items()
        }
        for layer, update in dense(sent).items():
            a, b = (sent[f"{layer}.lora_{which}.{SHARED}.weight"] for which in "AB")
            expected = 0.25 * products(members[0])[layer] + 0.75 * products(members[1])[layer]
            error = update + SCALE * (b @ a) - SCALE * expected
            assert np.abs(error).max() <= tolerance * np.abs(update).max()


# ---- FlexLoRA and unequal ranks -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["flexlora", "flora"])
def test_a_site_of_a_smaller_rank_stays_within_it(name: str, family: str) -> None:
    """After training with weight decay, too."""
    members, _, _ = two_sites(name, family, ranks=[2, 7])
    for member, rank in zip(members, (2, 7), strict=True):
        for layer, a in factors(member, "A").items():
            b = factors(member, "B")[layer]
            assert a.shape[0] == b.shape[1] == 8
            assert not a[rank:].any()
            assert not b[:, rank:].any()
            assert np.linalg.matrix_rank(b @ a) == rank


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, singular, vt = np.linalg.svd(matrix)
    return (u[:, :rank] * singular[:rank]) @ vt[:rank]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_gets_the_best_approximation_its_rank_has_room_for(family: str) -> None:
    members, _, shared = two_sites("flexlora", family, ranks=[2, 5])
    mean = {
        layer: 0.25 * product + 0.75 * products(members[1])[layer] for layer, product in products(members[0]).items()
    }
    for member, rank in zip(members, (2, 5), strict=True):
        member.open(2, shared)
        for layer, found in products(member).items():
            assert relative_error(found, best(mean[layer], rank)) < 1e-5


def test_without_ranks_flexlora_is_fedit_with_averaged_products() -> None:
    one = run_federation(get_method("flexlora"), "vit", cases=(4, 6))[1]
    other = run_federation(get_method("fedit", {"averaging": "product"}), "vit", cases=(4, 6))[1]
    assert all(one[key].tobytes() == other[key].tobytes() for key in other)


def test_sites_of_any_rank_share_one_manifest_and_one_scale() -> None:
    for name in ("flexlora", "flora"):
        method = get_method(name, {"ranks": [1, 8]})
        networks = [attached(method.for_site(index), "vit") for index in range(2)]
        assert method.scope(networks[0]).manifest == method.scope(networks[1]).manifest
        assert {layer.scaling[SHARED] for network in networks for layer in lora_layers(network).values()} == {SCALE}
