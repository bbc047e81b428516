"""Where a run starts: the same bits from the same seed, or exactly what a file holds, or a named refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.adapters.lora import PRIVATE, SHARED
from monai_fedlora.adapters.peft_folder import CONFIG_NAME, HEAD_NAME, save_peft_folder
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.federated.initial import (
    build_manifest,
    build_shared,
    check_resumable,
    load_shared,
    needs_backbone,
    save_shared,
    starting_point,
)
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import load_tensors, save_tensors, sha256
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.networks.cinema import convvit
from monai_fedlora.scope import Manifest
from tests.helpers import make_manifest, make_payload, make_plan, randomise

Payload = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the small size without heads, as pre-training leaves them."""
    torch.manual_seed(11)
    network = convvit("small", out_chans=2)
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    state = {k: v for k, v in network.state_dict().items() if not k.startswith(network.head_prefixes)}
    save_tensors(path, state, {})
    return path


def pinned(backbone: Path, **changes: Any) -> Plan:
    return make_plan(backbone_sha256=sha256(backbone), **changes)


def same_bits(one: Payload, other: Payload) -> bool:
    return one.keys() == other.keys() and all(one[key].tobytes() == other[key].tobytes() for key in one)


# ---- from a seed ----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_start_and_another_gives_another() -> None:
    manifest, payload = build_shared(make_plan(seed=1))
    assert same_bits(build_shared(make_plan(seed=1))[1], payload)
    assert not same_bits(build_shared(make_plan(seed=2))[1], payload)
    manifest.check(payload)


def test_building_does_not_touch_the_random_state() -> None:
    before = torch.random.get_rng_state()
    build_shared(make_plan())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_server_without_the_backbone_starts_as_one_that_has_it(backbone: Path) -> None:
    plan = pinned(backbone)
    assert not needs_backbone(plan)
    (manifest, without), (other, with_it) = build_shared(plan), build_shared(plan, backbone=str(backbone))
    assert manifest == other
    assert same_bits(without, with_it)


def test_a_method_that_shares_the_backbone_starts_from_its_file(backbone: Path) -> None:
    plan = pinned(backbone, method="fedavg", wire_dtype="float32")
    assert needs_backbone(plan)
    with pytest.raises(WeightsError, match=r"fedavg.*backbone file"):
        build_shared(plan)
    _, payload = build_shared(plan, backbone=str(backbone))
    stored, _ = load_tensors(backbone)
    shared = [key for key in stored if key in payload]
    assert len(shared) > 50
    assert all(payload[key].tobytes() == stored[key].numpy().tobytes() for key in shared)


def test_a_shared_decoder_starts_from_the_backbone_file_and_a_private_one_needs_none(backbone: Path) -> None:
    more = {"task": "segmentation", "classes": ("LV", "MYO", "RV")}
    plan = pinned(backbone, **more)
    assert needs_backbone(plan)
    with pytest.raises(WeightsError, match=r"dual_lora.*decoder.*backbone file"):
        build_shared(plan)
    manifest, payload = build_shared(plan, backbone=str(backbone))
    assert manifest == build_manifest(plan)
    assert any(key.startswith("decoder_dict.") for key in payload)
    assert not needs_backbone(pinned(backbone, method_args={"head": "private"}, **more))


@pytest.mark.parametrize(
    ("method", "settings"), [("dual_lora", {}), ("fedit", {}), ("local", {}), ("pfedst", {"classifier": "linear"})]
)
def test_adapters_side_networks_and_heads_need_no_backbone_on_the_server(method: str, settings: dict[str, str]) -> None:
    assert not needs_backbone(make_plan(method=method, method_args=settings))


def test_another_backbone_than_the_pinned_one_is_refused(backbone: Path) -> None:
    with pytest.raises(WeightsError, match="pinned"):
        build_shared(make_plan(method="fedavg"), backbone=str(backbone))


def test_a_method_that_shares_nothing_starts_from_nothing() -> None:
    manifest, payload = build_shared(make_plan(method="local"))
    assert manifest == Manifest({})
    assert payload == {}


# ---- from a file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_stored_tensors_come_back_to_the_bit(tmp_path: Path, dtype: str) -> None:
    manifest, path = make_manifest(dtype), tmp_path / "shared.safetensors"
    save_shared(path, make_payload(manifest), plan=make_plan(), round_number=4, score=0.5)
    payload, metadata = load_shared(path, manifest=manifest)
    assert same_bits(payload, make_payload(manifest))
    assert {key: array.shape for key, array in payload.items()} == {k: e.shape for k, e in manifest.entries.items()}
    assert metadata["round"] == "4"
    assert metadata["score"] == "0.5"
    assert metadata["fingerprint"] == make_plan().fingerprint
    assert Plan.from_json(json.loads(metadata["plan"])) == make_plan()


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_another_precision_are_brought_to_that_of_the_wire(tmp_path: Path, stored: torch.dtype) -> None:
    manifest, path = make_manifest("float16"), tmp_path / "shared.safetensors"
    tensors = {key: torch.from_numpy(value).to(stored) for key, value in make_payload(manifest).items()}
    save_tensors(path, tensors, {})
    payload, _ = load_shared(path, manifest=manifest)
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(payload[key], tensor.to(torch.float16).numpy())


@pytest.mark.parametrize("damage", ["missing", "undeclared", "shape", "nan", "overflow", "truncated", "absent"])
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, damage: str) -> None:
    manifest, path = make_manifest("float16"), tmp_path / "shared.safetensors"
    tensors = {key: torch.from_numpy(value).float() for key, value in make_payload(manifest).items()}
    if damage == "missing":
        del tensors["a"]
    elif damage == "undeclared":
        tensors["x.lora_A.private.weight"] = torch.ones(2)
    elif damage == "shape":
        tensors["a"] = tensors["a"].T
    elif damage == "nan":
        tensors["a"][0, 0] = float("nan")
    elif damage == "overflow":
        tensors["a"][0, 0] = 1e6
    save_tensors(path, tensors, {})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "absent":
        path.unlink()
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_shared(path, manifest=manifest)


# ---- what a user names ----------------------------------------------------------------------------------


def test_without_a_source_there_is_nothing_to_start_from() -> None:
    with starting_point(None, plan=make_plan(), manifest=make_manifest()) as (path, number):
        assert (path, number) == (None, None)


@pytest.mark.parametrize("number", [-1, 0, 12])
def test_a_stored_file_is_used_as_it_is_and_knows_its_round(tmp_path: Path, number: int) -> None:
    manifest, path = make_manifest(), tmp_path / "shared.safetensors"
    save_shared(path, make_payload(manifest), plan=make_plan(), round_number=number)
    with starting_point(str(path), plan=make_plan(), manifest=manifest) as found:
        assert found == (path, number)


@pytest.mark.parametrize("number", ["", "two", "²", "1.0", "-2"])
def test_a_file_with_an_unreadable_round_does_not_know_its_round(tmp_path: Path, number: str) -> None:
    manifest, path = make_manifest(), tmp_path / "shared.safetensors"
    tensors = {key: torch.from_numpy(value) for key, value in make_payload(manifest).items()}
    save_tensors(path, tensors, {"round": number})
    with starting_point(str(path), plan=make_plan(), manifest=manifest) as found:
        assert found == (path, None)


def test_a_run_can_go_on_only_where_its_sites_private_parts_are(tmp_path: Path) -> None:
    manifest, path = make_manifest(), tmp_path / "shared.safetensors"
    save_shared(path, make_payload(manifest), plan=make_plan(), round_number=3)
    check_resumable(path, plan=make_plan(rounds=50, seed=3))
    for change in ({"experiment": "other"}, {"method": "fedit"}, {"method_args": {"alpha": 32.0}}):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            check_resumable(path, plan=make_plan(**change))
    save_tensors(path, {"a": torch.ones(1)}, {})
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        check_resumable(path, plan=make_plan())


@pytest.fixture(scope="module")
def peft(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder with the shared adapter of a trained network, and that network's state."""
    network = build_network(size="small", out_chans=2, backbone=UNTRAINED, method="dual_lora", seed=5)
    randomise(network, "lora_", "pred_head")
    folder = tmp_path_factory.mktemp("peft")
    save_peft_folder(network, SHARED, folder)
    return folder, network.state_dict()


def test_a_peft_folder_gives_the_adapter_and_a_fresh_head(peft: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, state = peft
    plan = make_plan(wire_dtype="float32")
    manifest, fresh = build_shared(plan)
    with starting_point(str(folder), plan=plan, manifest=manifest) as (path, number):
        assert number is None
        assert path is not None
        payload, _ = load_shared(path, manifest=manifest)
    for key, value in payload.items():
        expected = state[key].numpy() if "lora_" in key else fresh[key]
        assert value.tobytes() == expected.tobytes()
    assert not path.exists()


def test_a_head_beside_the_adapter_is_used(tmp_path: Path, peft: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, state = peft
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_tensors(tmp_path / HEAD_NAME, {key: value for key, value in state.items() if "pred_head" in key}, {})
    plan = make_plan(wire_dtype="float32")
    manifest, _ = build_shared(plan)
    with starting_point(str(tmp_path), plan=plan, manifest=manifest) as (path, _):
        assert path is not None
        payload, _ = load_shared(path, manifest=manifest)
    assert all(value.tobytes() == state[key].numpy().tobytes() for key, value in payload.items())


def test_an_adapter_of_another_alpha_keeps_its_effect(peft: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, state = peft
    plan = make_plan(wire_dtype="float32", method_args={"alpha": 4.0})
    manifest, _ = build_shared(plan)
    with starting_point(str(folder), plan=plan, manifest=manifest) as (path, _):
        assert path is not None
        payload, _ = load_shared(path, manifest=manifest)
    key = next(key for key in payload if "lora_B" in key)
    np.testing.assert_allclose(payload[key], 4 * state[key].numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"method_args": {"rank": 4}},
        {"method_args": {"blocks": 1}},
        {"method_args": {"targets": ["attn.q"]}},
        {"method": "local"},
        {"method": "fedavg"},
        {"size": "tiny", "method_args": {"blocks": 1}},
    ],
    ids=str,
)
def test_a_peft_folder_for_another_network_is_named(
    peft: tuple[Path, dict[str, torch.Tensor]], change: dict[str, Any]
) -> None:
    folder, _ = peft
    plan = make_plan(**change)
    with (
        pytest.raises(WeightsError, match=re.escape(str(folder))),
        starting_point(str(folder), plan=plan, manifest=make_manifest()),
    ):
        pass


def test_a_folder_that_is_no_peft_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(WeightsError, match=CONFIG_NAME),
        starting_point(str(tmp_path), plan=make_plan(), manifest=make_manifest()),
    ):
        pass


def test_the_private_adapter_cannot_become_the_shared_start_by_its_name(tmp_path: Path) -> None:
    """A folder holds one nameless adapter; a head file with private keys in it is refused."""
    network = build_network(size="small", out_chans=2, backbone=UNTRAINED, method="dual_lora", seed=5)
    save_peft_folder(network, SHARED, tmp_path)
    private = {key: value for key, value in network.state_dict().items() if f".{PRIVATE}." in key}
    save_tensors(tmp_path / HEAD_NAME, private, {})
    plan = make_plan()
    with (
        pytest.raises(WeightsError, match=PRIVATE),
        starting_point(str(tmp_path), plan=plan, manifest=build_shared(plan)[0]),
    ):
        pass
