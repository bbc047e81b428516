"""The table of methods: what trains, what travels which way and what stays, by name, for both kinds of backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.scope import Role
from tests.methods.federation import FAMILIES, PAIRS, attached

LAYERS = {
    "convvit": [f"encoder.blocks.{block}.attn.{layer}" for block in (1, 2) for layer in ("q", "kv")],
    "vit": [f"blocks.{block}.attn.{layer}" for block in (1, 2) for layer in ("q", "v")],
}
EVERY_LAYER = {
    "convvit": [f"encoder.blocks.{block}.attn.{layer}" for block in (0, 1, 2) for layer in ("q", "kv")],
    "vit": [f"blocks.{block}.attn.{layer}" for block in (0, 1, 2) for layer in ("q", "v")],
}
ADAPTER = [f"head.adapter.{layer}.{leaf}" for layer in ("first", "second") for leaf in ("weight", "bias")]
HEADS = {"convvit": ["pred_head_dict.sax", "pred_head_dict.cls"], "vit": ["head"]}
PROJECTIONS = [f"side.{name}" for name in ("down.0", "down.1", "down.2", "blocks.0.out", "blocks.1.out", "up")]
SIDE = [f"side.blocks.{block}.{name}" for block in (0, 1) for name in ("norm.weight", "norm.bias", "qkv.weight")]


def keys(family: str, *groups: str, layers: dict[str, list[str]] = LAYERS) -> set[str]:
    """State-dict keys of groups: "A shared", "head", "head private", "image adapter", "everything" and so on."""
    found: set[str] = set()
    for group in groups:
        what, _, which = group.partition(" ")
        if what in "AB":
            found |= {f"{layer}.lora_{what}.{which}.weight" for layer in layers[family]}
        elif what == "delta":
            found |= {f"{layer}.base_layer.lora_delta" for layer in layers[family]}
        elif what == "head":
            branch = f".{which}" if which else ""
            found |= {f"{head}{branch}.{leaf}" for head in HEADS[family] for leaf in ("weight", "bias")}
        elif what == "side" and which:
            found |= {f"{layer}.lora_{factor}.{which}.weight" for layer in PROJECTIONS for factor in "AB"}
        elif what == "side":
            found |= {*SIDE, *(f"{layer}.base_layer.weight" for layer in PROJECTIONS)}
        elif what == "image":
            found |= set(ADAPTER)
        elif what == "context":
            found.add("head.context")
        elif what == "everything":
            found |= {name for name, _ in FAMILIES[family].build().named_parameters()}
        elif what == "norms":
            found |= {name for name in keys(family, "everything") if ".norm" in name or name.startswith("norm")}
        else:
            raise AssertionError(group)
    return found


@dataclass(frozen=True)
class Row:
    """What travels both ways, what stays in the site, what only goes up and what only comes down; "-" takes away."""

    both: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    every_block: bool = False


SHARED, PRIVATE = ("A shared", "B shared"), ("A private", "B private")
TABLE = {
    "centralised": Row(both=(*SHARED, "head")),
    "clip_adapter": Row(both=("image adapter",)),
    "clip_zero_shot": Row(),
    "ditto": Row(both=(*SHARED, "head shared"), stays=(*PRIVATE, "head private")),
    "dual_lora": Row(both=(*SHARED, "head"), stays=PRIVATE),
    "fedavg": Row(both=("everything",)),
    "fedbn": Row(both=("everything", "-norms"), stays=("norms",)),
    "feddpa": Row(both=(*SHARED, "head"), stays=PRIVATE),
    "fedex_lora": Row(both=(*SHARED, "head"), down=("delta",)),
    "fedit": Row(both=(*SHARED, "head")),
    "fedopal": Row(both=(*SHARED, "head"), stays=PRIVATE, every_block=True),
    "fedper": Row(both=SHARED, stays=("head",)),
    "fedprox": Row(both=(*SHARED, "head")),
    "fedrep": Row(both=SHARED, stays=("head",)),
    "fedsa_lora": Row(both=("A shared",), stays=("B shared", "head")),
    "fedsvd": Row(both=("B shared", "head"), down=("A shared",)),
    "ffa_lora": Row(both=("B shared", "head")),
    "flexlora": Row(both=(*SHARED, "head")),
    "flora": Row(both=("head",), up=SHARED, down=("delta",)),
    "linear_probe": Row(both=("head",)),
    "local": Row(stays=(*PRIVATE, "head")),
    "pfedst": Row(both=("side",), stays=("side private",)),
    "prompt_tuning": Row(both=("context",)),
}


def expand(family: str, groups: tuple[str, ...], row: Row) -> set[str]:
    layers = EVERY_LAYER if row.every_block else LAYERS
    wanted = keys(family, *(g for g in groups if not g.startswith("-")), layers=layers)
    return wanted - keys(family, *(g[1:] for g in groups if g.startswith("-")), layers=layers)


def check(name: str, family: str, row: Row, **settings: Any) -> None:
    method = get_method(name, settings)
    network = attached(method, family)
    scope = method.scope(network)
    both, stays, up, down = (expand(family, groups, row) for groups in (row.both, row.stays, row.up, row.down))
    assert set(scope.manifest.up.entries) == both | up
    assert set(scope.manifest.down.entries) == both | down
    assert set(scope.keys(Role.SHARED)) == both | up | down
    assert set(scope.keys(Role.PRIVATE)) == stays
    trains = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert trains == both | up | stays


def test_every_registered_method_has_a_row() -> None:
    assert set(TABLE) == set(method_names())


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_what_trains_what_travels_and_what_stays(name: str, family: str) -> None:
    check(name, family, TABLE[name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "name", ["dual_lora", "feddpa", "fedex_lora", "fedit", "fedprox", "fedsvd", "ffa_lora", "flexlora", "flora"]
)
def test_a_private_head_stays(name: str, family: str) -> None:
    row = TABLE[name]
    both = tuple(group for group in row.both if group != "head")
    check(name, family, Row(both=both, stays=(*row.stays, "head"), up=row.up, down=row.down), head="private")


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_can_train_in_place_of_adapters(family: str) -> None:
    check("fedprox", family, Row(both=("everything",)), trains="everything")
    for name in ("fedper", "fedrep"):
        check(name, family, Row(both=("everything", "-head"), stays=("head",)), trains="everything")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_linear_head_beside_a_side_network_is_shared(family: str) -> None:
    check("pfedst", family, Row(both=("side", "head"), stays=("side private",)), classifier="linear")


def test_an_adapter_without_biases_travels_whole() -> None:
    network = attached(get_method("clip_adapter", {"form": "residual"}), "clip")
    scope = get_method("clip_adapter").scope(network)
    assert set(scope.manifest.entries) == {"head.adapter.first.weight", "head.adapter.second.weight"}


def test_the_norms_that_fedbn_keeps_are_all_there_are() -> None:
    """By a second way of finding them: every one-dimensional weight is a norm's in these networks."""
    for family in FAMILIES:
        state = FAMILIES[family].build().state_dict()
        found = {key.removesuffix(".weight") for key in state if key.endswith(".weight") and state[key].ndim == 1}
        assert {key.rpartition(".")[0] for key in keys(family, "norms")} == found
        assert found


@pytest.mark.parametrize("name", [name for name in TABLE if hasattr(get_method(name), "targets")])
def test_blocks_and_targets_choose_what_trains(name: str) -> None:
    network = attached(get_method(name, {"blocks": 1, "targets": ["proj", "fc2"]}), "vit")
    adapted = {key.partition(".lora_")[0] for key in network.state_dict() if ".lora_A." in key}
    assert adapted == {"blocks.2.attn.proj", "blocks.2.mlp.fc2"}


# ---- sizes ----------------------------------------------------------------------------------------------


def manifest(name: str, size: str, wire: str = "float32", **settings: Any) -> Any:
    method = get_method(name, settings)
    with torch.device("meta"):
        network = build_backbone(size, out_chans=2)
        method.attach(network)
    return method.scope(network, wire_dtype=wire).manifest


HEAD_BYTES = 4 * 2 * (768 * 2 + 2)
"""Two linear heads of a 768-wide ConvViT, in float32."""


@pytest.mark.parametrize(("wire", "size"), [("float32", 4), ("float16", 2)])
def test_dual_lora_on_a_768_wide_encoder_sends_61440_adapter_parameters(wire: str, size: int) -> None:
    entries = manifest("dual_lora", "base", wire).entries
    assert sum(torch.Size(entry.shape).numel() for key, entry in entries.items() if "lora_" in key) == 61_440
    assert manifest("dual_lora", "base", wire).nbytes == size * 61_440 + HEAD_BYTES * size // 4


def test_fedavg_on_the_same_encoder_sends_over_a_thousand_times_as_much() -> None:
    assert manifest("fedavg", "base").nbytes > 1_000 * manifest("dual_lora", "base").nbytes


def test_one_factor_alone_is_a_part_of_the_traffic_of_both() -> None:
    """In q A and B are 768 wide each; in the fused kv B is twice as wide."""
    both = manifest("fedit", "base").nbytes - HEAD_BYTES
    a, b = 4 * 2 * 8 * (768 + 768), 4 * 2 * 8 * (768 + 1536)
    assert both == a + b
    assert manifest("fedsa_lora", "base").nbytes == a
    assert manifest("ffa_lora", "base").nbytes == b + HEAD_BYTES


def test_flora_sends_factors_up_and_dense_updates_down() -> None:
    found = manifest("flora", "base")
    assert found.up.nbytes == manifest("fedit", "base").nbytes
    assert found.down.nbytes == 4 * 2 * (768 * 768 + 768 * 1536) + HEAD_BYTES


def test_fedex_lora_sends_factors_both_ways_and_dense_updates_down() -> None:
    found = manifest("fedex_lora", "base")
    assert found.up.nbytes == manifest("fedit", "base").nbytes
    assert found.down.nbytes == found.up.nbytes + 4 * 2 * (768 * 768 + 768 * 1536)


def test_fedsvd_sends_b_up_and_both_factors_down() -> None:
    found = manifest("fedsvd", "base")
    assert found.up.nbytes == manifest("ffa_lora", "base").nbytes
    assert found.down.nbytes == manifest("fedit", "base").nbytes
