"""What does not fit the network is refused: the file and the keys are named, the network is untouched."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.networks.weights import load_backbone
from tests.networks.published import (
    DEPTH,
    DIM,
    EMPTY,
    HEADS,
    PATCH,
    STORED,
    assert_refused,
    assert_same,
    fuzz,
    network_of,
    state_of,
    write,
)


def test_the_file_of_the_refusals_is_accepted_as_it_is(tmp_path: Path) -> None:
    info = load_backbone(network_of(), write(tmp_path, STORED))
    assert (info.n_loaded, info.skipped) == (len(STORED), ())


@fuzz
@given(key=st.sampled_from(sorted(STORED)))
def test_a_missing_key_is_named_as_the_file_names_it(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, {name: value for name, value in STORED.items() if name != key})
    assert_refused(EMPTY, path, str(path), f"it lacks {key}")


@fuzz
@given(name=st.text("abcxyz._0", min_size=1, max_size=20).map(lambda name: f"encoder.{name}"))
def test_an_extra_key_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, {**STORED, name: torch.zeros(2)})
    assert_refused(EMPTY, path, str(path), f"the network has no {name}")


@fuzz
@given(key=st.sampled_from(sorted(STORED)), data=st.data())
def test_a_wrong_shape_is_named(tmp_path: Path, key: str, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, STORED[key].ndim - 1))
    wrong = torch.cat([STORED[key]] * 3, dim=axis)
    path = write(tmp_path, {**STORED, key: wrong})
    if key == "embeddings.position_embeddings" and axis == 1:
        assert (3 * 17 - 1) ** 0.5 % 1 != 0
    assert_refused(EMPTY, path, str(path), f"{key} is {tuple(wrong.shape)}")


@fuzz
@given(key=st.sampled_from(sorted(STORED)), bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, key: str, bad: float) -> None:
    spoilt = STORED[key].clone()
    spoilt.view(-1)[-1] = bad
    path = write(tmp_path, {**STORED, key: spoilt})
    assert_refused(EMPTY, path, str(path), f"{key} holds NaN or infinite values")


def test_integers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {**STORED, "layernorm.weight": torch.ones(DIM, dtype=torch.int32)})
    assert_refused(EMPTY, path, "layernorm.weight holds I32 values")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"depth": 2}, "the network has no encoder.layer.2."),
        ({"depth": 4}, "it lacks encoder.layer.3."),
        ({"layer_scale": True}, "it lacks blocks.0.ls1.gamma"),
        ({"pre_norm": True}, "it lacks embed.norm.bias"),
        ({"qkv_bias": False}, "the network has no encoder.layer.0.attention.attention.key.bias"),
        ({"dim": 24}, "instead of (24"),
        ({"patch": 4}, "projection.weight is (16, 3, 8, 8) instead of (16, 3, 4, 4)"),
        ({"mlp_ratio": 2}, "intermediate.dense.bias is (64,) instead of (32,)"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    assert_refused(network_of(**options), write(tmp_path, STORED), named)


def test_positions_of_no_square_grid_are_refused_unless_they_are_the_networks_own(tmp_path: Path) -> None:
    table = torch.randn(1, 1 + 8, DIM)
    path = write(tmp_path, {**STORED, "embeddings.position_embeddings": table})
    assert_refused(EMPTY, path, "position_embeddings is (1, 9, 16)")
    torch.manual_seed(0)
    shape = ViTSettings(image_size=(16, 32), patch=PATCH, dim=DIM, depth=DEPTH, n_heads=HEADS)
    network = VisionTransformer(shape, out_chans=2)
    load_backbone(network, path)
    assert_same({"p": network.embed.position.detach()}, {"p": table[:, 1:]})


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(2)})
    assert_refused(EMPTY, path, "conv1.weight, fc.bias", "none of the known layouts", "RETFound", "MONAI's ViT")


def test_a_network_with_adapters_is_refused(tmp_path: Path) -> None:
    from monai_fedlora.adapters.lora import LoraSettings, attach_lora

    network = network_of()
    attach_lora(network, LoraSettings(rank=2), ["shared"])
    assert_refused(network, write(tmp_path, STORED), "already carries adapters")


WHOLE_FILE = save(STORED)


@settings(fuzz, max_examples=40)
@given(length=st.integers(0, len(WHOLE_FILE) - 1))
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(WHOLE_FILE[:length])
    assert_refused(EMPTY, path, str(path))


@pytest.mark.slow
@settings(fuzz, max_examples=60)
@given(position=st.integers(0, 4000), value=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_loads_whole(tmp_path: Path, position: int, value: int) -> None:
    damaged = bytearray(WHOLE_FILE)
    damaged[position] = value
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged)
    network = network_of()
    before = state_of(network)
    try:
        load_backbone(network, path)
    except WeightsError as error:
        assert str(path) in str(error)
        assert_same(state_of(network), before)
    if damaged != WHOLE_FILE:
        assert_refused(EMPTY, path, str(path), sha256=hashlib.sha256(WHOLE_FILE).hexdigest())


@pytest.mark.parametrize(
    "key",
    ["embeddings.register_tokens", "reg_token", "encoder.layer.0.mlp.weights_in.weight", "blocks.0.mlp.w12.weight"],
)
def test_what_the_network_does_not_have_is_named(tmp_path: Path, key: str) -> None:
    assert_refused(EMPTY, write(tmp_path, {**STORED, key: torch.zeros(1, 1, DIM)}), f"the network has no {key}")
