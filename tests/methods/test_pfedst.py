"""pFedST: with texts in place of a head, in its three schedules, at the sizes it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch.nn import functional

from monai_fedlora.adapters.lora import PRIVATE, lora_layers
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods import Method, get_method
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.scope import Manifest
from tests.helpers import randomise, tiny_clip, tiny_photographs
from tests.methods.federation import (
    FAMILIES,
    Member,
    Payload,
    attached,
    bits,
    disturbed,
    logits,
    trained,
    watched,
)
from tests.methods.test_behaviour import BEHAVIOURS

SCHEDULES = ("joint", "alternate", "private_after")


# ---- with texts -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_owes_its_sites_the_same_with_texts(schedule: str, behaviour: Callable[[Method, str], None]) -> None:
    behaviour(get_method("pfedst", {"schedule": schedule}), "clip")


@torch.no_grad()
def test_before_training_the_logits_are_clips() -> None:
    """By hand: the class token of the last block, normalised and projected, and its cosines with the texts."""
    network, images = attached(get_method("pfedst"), "clip"), tiny_photographs()
    plain = tiny_clip()
    tokens = plain.embed(images).tokens
    for block in plain.blocks:
        tokens = block(tokens)
    image = plain.norm(tokens[:, 0]) @ plain.head.projection.T
    cosines = functional.cosine_similarity(image[:, None], plain.head.text[None], dim=-1)
    torch.testing.assert_close(logits(network, "clip"), torch.exp(torch.tensor(2.0)) * cosines)
    assert torch.equal(logits(network, "clip"), logits(plain, "clip"))


def test_texts_neither_train_nor_travel() -> None:
    found = trained(get_method("pfedst"), "clip")
    assert bits(found.network.head.state_dict()) == bits(tiny_clip().head.state_dict())
    assert not any(key.startswith("head.") for key in found.scope.manifest.entries)


def test_texts_are_read_unless_the_head_is_linear() -> None:
    assert get_method("pfedst").reads_text
    assert not get_method("pfedst", {"classifier": "linear"}).reads_text
    assert not get_method("fedit").reads_text


@pytest.mark.parametrize("size", ["vit_demo", "small", "dinov2_small_14"])
def test_a_backbone_without_texts_takes_a_linear_head(size: str) -> None:
    def build(**settings: Any) -> Any:
        return build_network(size=size, out_chans=3, backbone=UNTRAINED, method="pfedst", method_args=settings)

    with torch.device("meta"):
        with pytest.raises(ConfigError, match="choose a size that can"):
            build()
        network = build(classifier="linear")
    assert all(p.requires_grad for key, p in network.named_parameters() if key.startswith(network.head_prefixes))


# ---- what travels ---------------------------------------------------------------------------------------


def manifest(wire: str, **settings: Any) -> Manifest:
    with torch.device("meta"):
        network = build_network(
            size="clip_base_16", out_chans=8, backbone=UNTRAINED, method="pfedst", method_args=settings
        )
    return get_method("pfedst", settings).scope(network, wire_dtype=wire).manifest


@pytest.mark.parametrize(("wire", "size", "most"), [("float32", 4, 5_600_000), ("float16", 2, 2_800_000)])
def test_a_round_of_clip_sends_a_few_megabytes(wire: str, size: int, most: int) -> None:
    found = manifest(wire)
    downs, attention, norms, up = 12 * 768 * 96, 11 * 4 * 96 * 96, 11 * 2 * 96, 96 * 768
    assert found.up.nbytes == found.down.nbytes == size * (downs + attention + norms + up)
    assert found.nbytes <= most
    assert not any(PRIVATE in key for key in found.entries)


def test_a_linear_head_travels_with_the_side_network() -> None:
    assert manifest("float32", classifier="linear").nbytes == manifest("float32").nbytes + 4 * (768 * 8 + 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unseen_site_gets_the_side_network_without_its_adapters(family: str) -> None:
    method = get_method("pfedst")
    network = attached(method, family)
    randomise(network, "side.")
    personal = logits(network, family)
    with method.shared_only(network):  # type: ignore[union-attr]
        shared = logits(network, family)
    with torch.no_grad():
        for layer in lora_layers(network).values():
            layer.lora_B[PRIVATE].weight.zero_()
    torch.testing.assert_close(shared, logits(network, family), rtol=1e-6, atol=1e-6)
    assert (shared - personal).abs().max() > 1e-3


def test_without_its_adapters_every_parameter_still_has_a_gradient() -> None:
    """Processes that train together wait for one from each."""
    method = get_method("pfedst")
    network = attached(method, "vit")
    randomise(network, "side.")
    with method.shared_only(network):  # type: ignore[union-attr]
        network(tiny_photographs()).square().sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert bool(parameter.grad.any()) == (".private." not in name)


# ---- schedules ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["text", "linear"])
@pytest.mark.parametrize(("share", "private_steps"), [(0.5, 2), (0.25, 1), (0.75, 3), (0.99, 3)])
@pytest.mark.parametrize("schedule", ["alternate", "private_after"])
def test_the_shared_part_trains_before_the_private_one(
    schedule: str, share: float, private_steps: int, classifier: str
) -> None:
    settings = {"schedule": schedule, "private_share": share, "classifier": classifier}
    member = Member(get_method("pfedst", settings), "vit", cases=8)
    log = watched(member)
    member.train(0, member.initial())
    shared = [step < 4 - private_steps for step in range(4)]
    assert [any(".private." not in name for name in moved) for moved in log] == shared
    assert [any(".private." in name for name in moved) for moved in log] == [not step for step in shared]
    heads = [any(name.startswith("head.") for name in moved) for moved in log]
    assert heads == [step and classifier == "linear" for step in shared]


def test_by_default_everything_trains_in_every_step() -> None:
    member = Member(get_method("pfedst"), "vit", cases=8)
    log = watched(member)
    member.train(0, member.initial())
    assert all(any(".private." in name for name in moved) for moved in log)
    assert all(any(".private." not in name for name in moved) for moved in log)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_a_site_sends_depends_on_its_private_part_unless_that_comes_after(schedule: str, family: str) -> None:
    def sent(change: Callable[[Member], Any]) -> Payload:
        member = Member(get_method("pfedst", {"schedule": schedule}), family)
        shared = member.train(0, member.initial())
        change(member)
        return member.train(1, shared)

    one, other = sent(lambda member: member), sent(lambda member: disturbed(member, ".private."))
    assert all(one[key].tobytes() == other[key].tobytes() for key in one) == (schedule == "private_after")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("joint", [1, 1, 1, 1]), ("alternate", [1, 1, 1, 1]), ("private_after", [0, 0, 1, 1])],
)
def test_the_private_part_computes_in_all_steps_but_those_it_comes_after(schedule: str, expected: list[int]) -> None:
    member = Member(get_method("pfedst", {"schedule": schedule}), "vit", cases=8)
    scales: list[set[float]] = []

    def note() -> None:
        scales.append({layer.scaling[PRIVATE] for layer in lora_layers(member.network).values()})

    member.trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    member.train(0, member.initial())
    assert scales == [{scale} for scale in expected]
