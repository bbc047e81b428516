"""Only what is declared may travel: every other payload or report is refused, whole, and no value is named."""

from __future__ import annotations

import re
import string
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import FedLoraError, PrivacyError
from monai_fedlora.files import write_json
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.scope import Entry, Manifest, Role, Scope
from tests.helpers import make_manifest, make_payload, through_json, tiny_clip, tiny_network
from tests.methods.federation import NEED_TEXTS

SECRET = 7777.5

# Keys without digits, so that a value in a message cannot be mistaken for a part of a key.
keys = st.text(string.ascii_letters + "._", min_size=1, max_size=12)
entries = st.builds(
    Entry,
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
manifests = st.dictionaries(keys, entries, max_size=5).map(Manifest)
full_manifests = st.dictionaries(keys, entries, min_size=1, max_size=5).map(Manifest)


def secret_payload(manifest: Manifest) -> dict[str, Any]:
    return {key: np.full(entry.shape, SECRET, entry.dtype) for key, entry in manifest.entries.items()}


def refusal(manifest: Manifest, payload: Any) -> str:
    """What a gate says, and whoever opens the payload says too."""
    with pytest.raises(PrivacyError) as caught:
        manifest.check(payload)
    with pytest.raises(PrivacyError, match=re.escape(str(caught.value))):
        manifest.open(payload, {})
    assert "7777" not in str(caught.value)
    return str(caught.value)


# ---- the payload ----------------------------------------------------------------------------------------


@given(manifests)
def test_exactly_the_declared_tensors_pass(manifest: Manifest) -> None:
    manifest.check(secret_payload(manifest))


@given(manifests, keys, st.sampled_from([np.zeros(2, np.float32), "text", None, SECRET, b"bytes"]))
def test_an_undeclared_key_is_refused_and_named(manifest: Manifest, key: str, value: Any) -> None:
    payload = secret_payload(manifest)
    if key in payload:
        return
    assert repr(key) in refusal(manifest, {**payload, key: value})


@given(st.data(), full_manifests)
def test_a_missing_key_is_refused_and_named(data: st.DataObject, manifest: Manifest) -> None:
    payload = secret_payload(manifest)
    key = data.draw(st.sampled_from(sorted(payload)))
    del payload[key]
    assert repr(key) in refusal(manifest, payload)


@given(st.data(), full_manifests, st.lists(st.integers(0, 3), max_size=3).map(tuple))
def test_another_shape_is_refused_and_named(data: st.DataObject, manifest: Manifest, shape: tuple[int, ...]) -> None:
    payload = secret_payload(manifest)
    key = data.draw(st.sampled_from(sorted(payload)))
    if payload[key].shape == shape:
        return
    payload[key] = np.full(shape, SECRET, payload[key].dtype)
    assert repr(key) in refusal(manifest, payload)


@given(st.data(), full_manifests, st.sampled_from(["float16", "float32", "float64", "int32", "bool", ">f4", "O", "U9"]))
def test_another_dtype_is_refused_and_named(data: st.DataObject, manifest: Manifest, dtype: str) -> None:
    payload = secret_payload(manifest)
    key = data.draw(st.sampled_from(sorted(payload)))
    if payload[key].dtype == np.dtype(dtype):
        return
    payload[key] = payload[key].astype(dtype)
    assert repr(key) in refusal(manifest, payload)


@given(st.data(), full_manifests, st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_value_that_is_not_finite_is_refused(data: st.DataObject, manifest: Manifest, value: float) -> None:
    payload = secret_payload(manifest)
    filled = sorted(key for key, array in payload.items() if array.size)
    if not filled:
        return
    key = data.draw(st.sampled_from(filled))
    payload[key].flat[data.draw(st.integers(0, payload[key].size - 1))] = value
    assert repr(key) in refusal(manifest, payload)


@pytest.mark.parametrize(
    "value",
    [
        None,
        SECRET,
        "7777.5",
        b"7777.5",
        [SECRET] * 4,
        {"x": SECRET},
        torch.full((4,), SECRET),
        np.float32(SECRET),
        np.ma.masked_array(np.full(4, SECRET, np.float32)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_array_is_refused(value: Any) -> None:
    manifest = make_manifest()
    assert "'b.weight'" in refusal(manifest, {**make_payload(manifest), "b.weight": value})


@given(st.none() | st.integers() | st.text() | st.binary() | st.lists(st.integers()) | st.just(np.zeros(3)))
def test_what_is_no_mapping_is_refused(value: Any) -> None:
    refusal(make_manifest(), value)


def test_a_long_list_of_offending_keys_is_cut_short() -> None:
    message = refusal(Manifest({}), {f"key{letter}": SECRET for letter in string.ascii_lowercase})
    assert "and 18 more" in message
    assert message.count("'key") == 8


# ---- the manifest ---------------------------------------------------------------------------------------


@given(manifests)
def test_a_manifest_survives_json(manifest: Manifest) -> None:
    again = Manifest.from_json(through_json(manifest.to_json()))
    assert again == manifest
    assert again.digest == manifest.digest


@given(manifests)
def test_nbytes_is_what_the_arrays_hold(manifest: Manifest) -> None:
    assert manifest.nbytes == sum(array.nbytes for array in secret_payload(manifest).values())


@given(manifests, manifests)
def test_manifests_are_equal_exactly_where_their_digests_are(one: Manifest, other: Manifest) -> None:
    assert (one == other) == (one.digest == other.digest)


@given(st.data(), full_manifests, keys, entries)
def test_the_digest_changes_with_any_entry(data: st.DataObject, manifest: Manifest, key: str, entry: Entry) -> None:
    changed = dict(manifest.entries)
    old = data.draw(st.sampled_from(sorted(changed)))
    change = data.draw(st.sampled_from(["rename", "remove", "replace"]))
    former = changed.pop(old)
    if change == "rename":
        changed[key] = former
    elif change == "replace":
        changed[old] = entry
    if changed != manifest.entries:
        assert Manifest(changed).digest != manifest.digest


def test_the_digest_ignores_the_order_of_entries() -> None:
    manifest = make_manifest()
    assert Manifest(dict(reversed(manifest.entries.items()))).digest == manifest.digest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["shape", "dtype", "x"]), inner),
    max_leaves=8,
)


@given(json_values | st.dictionaries(keys, st.fixed_dictionaries({"shape": json_values, "dtype": json_values})))
def test_any_json_is_a_manifest_or_is_refused(value: Any) -> None:
    try:
        manifest = Manifest.from_json(value)
    except PrivacyError:
        return
    assert manifest.to_json() == value


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [2]},
        {"dtype": "float32"},
        {"shape": [-1], "dtype": "float32"},
        {"shape": [1.5], "dtype": "float32"},
        {"shape": [float("inf")], "dtype": "float32"},
        {"shape": [True], "dtype": "float32"},
        {"shape": "12", "dtype": "float32"},
        {"shape": 3, "dtype": "float32"},
        {"shape": [2], "dtype": None},
        {"shape": [2], "dtype": "f4"},
        {"shape": [2], "dtype": "int64"},
        {"shape": [2], "dtype": "object"},
        {"shape": [2], "dtype": "U8"},
        {"shape": [2], "dtype": "float32", "value": 1},
        [2, "float32"],
    ],
    ids=str,
)
def test_a_manifest_declares_floating_point_shapes_and_nothing_else(entry: Any) -> None:
    with pytest.raises(PrivacyError, match="not a manifest"):
        Manifest.from_json({"a": entry})


def test_a_bad_manifest_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    for text in ('{"a": {"shape": [2]}}', '{"a": {"sha', "[]"):
        path.write_text(text)
        with pytest.raises(FedLoraError, match=re.escape(str(path))):
            Manifest.load(path)
    with pytest.raises(FedLoraError, match="absent"):
        Manifest.load(tmp_path / "absent.json")
    write_json(path, make_manifest().to_json())
    assert Manifest.load(path) == make_manifest()


# ---- a network's scope ----------------------------------------------------------------------------------


def small_network() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    network[0].requires_grad_(False)
    return network


def test_every_tensor_has_one_role_and_only_trained_ones_are_asked_about() -> None:
    network, asked = small_network(), []

    def is_shared(key: str) -> bool:
        asked.append(key)
        return key.startswith("2.")

    scope = Scope.of(network, is_shared)
    assert scope.roles == {
        "0.weight": Role.FROZEN,
        "0.bias": Role.FROZEN,
        "1.weight": Role.PRIVATE,
        "1.bias": Role.PRIVATE,
        "1.running_mean": Role.FROZEN,
        "1.running_var": Role.FROZEN,
        "1.num_batches_tracked": Role.FROZEN,
        "2.weight": Role.SHARED,
        "2.bias": Role.SHARED,
    }
    assert sorted(asked) == ["1.bias", "1.weight", "2.bias", "2.weight"]
    assert scope.manifest == Manifest({"2.weight": Entry((2, 3), "float32"), "2.bias": Entry((2,), "float32")})


def test_statistics_of_normalisation_layers_never_travel() -> None:
    scope = Scope.of(small_network(), lambda key: True)
    assert not any("running" in key for key in scope.manifest.entries)


@pytest.mark.parametrize("name", method_names())
def test_no_private_key_is_ever_in_a_payload(name: str) -> None:
    network, method = tiny_clip() if name in NEED_TEXTS else tiny_network(), get_method(name)
    method.attach(network)
    scope = method.scope(network)
    payload = scope.shared_payload(network)
    assert payload.keys() == scope.manifest.up.entries.keys()
    assert scope.manifest.entries.keys() == set(scope.keys(Role.SHARED))
    assert payload.keys().isdisjoint(scope.keys(Role.PRIVATE))
    assert payload.keys().isdisjoint(scope.keys(Role.FROZEN))


@pytest.fixture
def dual() -> tuple[nn.Module, Scope]:
    network, method = tiny_network(), get_method("dual_lora")
    method.attach(network)
    return network, method.scope(network)


def bits(network: nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


def test_a_payload_comes_back_to_the_bit(dual: tuple[nn.Module, Scope]) -> None:
    network, scope = dual
    sent = {key: value + 1 for key, value in scope.shared_payload(network).items()}
    before = bits(network)
    scope.load_shared(network, sent)
    received = scope.shared_payload(network)
    assert all(received[key].tobytes() == value.tobytes() for key, value in sent.items())
    after = bits(network)
    assert {key for key in after if after[key] != before[key]} == set(sent)


def test_a_payload_is_a_copy(dual: tuple[nn.Module, Scope]) -> None:
    network, scope = dual
    before = bits(network)
    for array in scope.shared_payload(network).values():
        array += 1
    for tensor in scope.private_state(network).values():
        tensor += 1
    assert bits(network) == before


def test_a_loaded_payload_is_not_tied_to_the_network(dual: tuple[nn.Module, Scope]) -> None:
    network, scope = dual
    payload = scope.shared_payload(network)
    scope.load_shared(network, payload)
    before = bits(network)
    for array in payload.values():
        array += 1
    assert bits(network) == before


@pytest.mark.parametrize("position", [0, -1])
@pytest.mark.parametrize("damage", ["nan", "shape", "dtype", "missing", "private", "frozen"])
def test_a_refused_payload_leaves_the_network_untouched(
    dual: tuple[nn.Module, Scope], damage: str, position: int
) -> None:
    network, scope = dual
    payload = {key: value + 1 for key, value in scope.shared_payload(network).items()}
    key = list(payload)[position]
    if damage == "nan":
        payload[key].flat[0] = np.nan
    elif damage == "shape":
        payload[key] = payload[key][..., :1]
    elif damage == "dtype":
        payload[key] = payload[key].astype(np.float64)
    elif damage == "missing":
        del payload[key]
    else:
        other = scope.keys(Role(damage))[position]
        payload[other] = network.state_dict()[other].numpy() + 1
    before = bits(network)
    with pytest.raises(PrivacyError):
        scope.load_shared(network, payload)
    assert bits(network) == before


def test_a_value_too_large_for_the_wire_is_refused_and_never_sent_as_infinity() -> None:
    network, method = tiny_network(), get_method("dual_lora")
    method.attach(network)
    scope = method.scope(network, wire_dtype="float16")
    key = scope.keys(Role.SHARED)[0]
    with torch.no_grad():
        network.get_parameter(key).view(-1)[0] = 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PrivacyError, match=re.escape(repr(key))):
            scope.shared_payload(network)


def test_the_wire_dtype_rounds_shared_tensors_and_nothing_else(dual: tuple[nn.Module, Scope]) -> None:
    network, scope = dual
    half = get_method("dual_lora").scope(network, wire_dtype="float16")
    assert half.manifest.nbytes * 2 == scope.manifest.nbytes
    exact, rounded = scope.shared_payload(network), half.shared_payload(network)
    for key in exact:
        np.testing.assert_array_equal(rounded[key], exact[key].astype(np.float16))
    assert {value.dtype for value in half.private_state(network).values()} == {torch.float32}


def test_private_tensors_come_back_to_the_bit(dual: tuple[nn.Module, Scope]) -> None:
    network, scope = dual
    stored = {key: value + 1 for key, value in scope.private_state(network).items()}
    scope.load_private(network, stored)
    for key, value in scope.private_state(network).items():
        assert torch.equal(value, stored[key])


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_private_tensors_of_another_network_are_refused_and_change_nothing(
    dual: tuple[nn.Module, Scope], damage: str
) -> None:
    network, scope = dual
    stored = {key: value + 1 for key, value in scope.private_state(network).items()}
    key = sorted(stored)[-1]
    if damage == "missing":
        del stored[key]
    elif damage == "unknown":
        stored[key.replace("private", "shared")] = stored[key]
    else:
        stored[key] = stored[key][:1]
    before = bits(network)
    with pytest.raises(PrivacyError, match="lora"):
        scope.load_private(network, stored)
    assert bits(network) == before


# ---- which way ------------------------------------------------------------------------------------------


def one_way_scope() -> tuple[nn.Module, Scope]:
    """Weight of layer 0 travels up, its bias both ways, the frozen weight of layer 2 comes down."""
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    network[2].requires_grad_(False)
    ways = {"0.weight": "up", "2.weight": "down"}
    return network, Scope.of(network, lambda key: key.startswith("0."), travels=ways.get)


def test_a_tensor_can_travel_one_way_alone() -> None:
    network, scope = one_way_scope()
    assert set(scope.manifest.up.entries) == {"0.weight", "0.bias"}
    assert set(scope.manifest.down.entries) == {"2.weight", "0.bias"}
    assert set(scope.shared_payload(network)) == {"0.weight", "0.bias"}
    assert set(scope.initial_payload(network)) == {"2.weight", "0.bias"}
    assert scope.roles["2.bias"] is Role.FROZEN


def test_what_travels_up_is_refused_on_its_way_down() -> None:
    network, scope = one_way_scope()
    with pytest.raises(PrivacyError, match=r"undeclared keys: '0\.weight'"):
        scope.load_shared(network, scope.shared_payload(network))


@given(st.dictionaries(st.text(min_size=1), st.sampled_from(["up", "down", "both"])))
def test_the_way_survives_a_file(ways: dict[str, str]) -> None:
    manifest = Manifest({key: Entry((1,), "float32", way) for key, way in ways.items()})
    assert Manifest.from_json(through_json(manifest.to_json())) == manifest
    assert set(manifest.up.entries) | set(manifest.down.entries) == set(ways)


def test_a_private_tensor_travels_no_way_whatever_is_said() -> None:
    network = nn.Linear(2, 2)
    scope = Scope.of(network, lambda key: False, travels=lambda key: "up")
    assert not scope.manifest.entries


@pytest.mark.parametrize("way", ["sideways", None, 1, []])
def test_a_manifest_with_another_way_is_refused(way: object) -> None:
    with pytest.raises(PrivacyError, match="travels"):
        Manifest.from_json({"a": {"shape": [1], "dtype": "float32", "travels": way}})


# ---- encoded updates ------------------------------------------------------------------------------------

INT8 = Encoding(values="int8")
ways = st.sampled_from(["up", "down", "both"])
encodings = st.builds(Encoding, values=st.sampled_from(["int8", "float16", "float32"]), kept=st.floats(0.01, 1))
wide_entries = st.builds(Entry, st.tuples(st.integers(0, 99)), st.sampled_from(["float16", "float32"]), ways)
encoded_manifests = st.builds(
    Manifest.encoded, st.dictionaries(keys, wide_entries, max_size=5).map(Manifest), encodings
)


def changes_of(manifest: Manifest, seed: int = 0) -> dict[str, np.ndarray]:
    """A legal payload upwards, for values from 0."""
    generator, payload = np.random.default_rng(seed), {}
    for key, entry in manifest.up.entries.items():
        values = generator.normal(size=entry.shape)
        payload[key] = entry.encoding.encode(values) if entry.encoding else np.array(values, entry.dtype)
    return payload


@given(encoded_manifests)
def test_an_encoded_manifest_survives_json(manifest: Manifest) -> None:
    again = Manifest.from_json(through_json(manifest.to_json()))
    assert again == manifest
    assert again.digest == manifest.digest


@given(encoded_manifests)
def test_exactly_the_declared_changes_pass_and_have_the_announced_bytes(manifest: Manifest) -> None:
    payload = changes_of(manifest)
    manifest.up.check(payload)
    assert manifest.up.nbytes == sum(array.nbytes for array in payload.values())


@given(st.dictionaries(keys, wide_entries, max_size=5).map(Manifest), encodings)
def test_what_comes_down_is_never_encoded_and_nothing_grows(manifest: Manifest, encoding: Encoding) -> None:
    encoded = manifest.encoded(encoding)
    assert encoded.down == manifest.down
    assert encoded.up.nbytes <= manifest.up.nbytes
    assert encoded.entries.keys() == manifest.entries.keys()
    for key, entry in encoded.entries.items():
        if entry.encoding is None:
            size = manifest.entries[key].nbytes // np.dtype(entry.dtype).itemsize
            assert entry.travels == "down" or encoding.nbytes(size) >= entry.nbytes


def test_an_encoding_makes_another_digest() -> None:
    manifest = Manifest({"a": Entry((100,), "float16")})
    others = (manifest.encoded(encoding) for encoding in (INT8, Encoding(values="int8", kept=0.5)))
    assert len({made.digest for made in (manifest, *others)}) == 3


ENCODED = Manifest({"a": Entry((10, 10), "float16", "both", INT8), "b": Entry((3,), "float16")})


def test_an_entry_says_what_goes_up() -> None:
    assert str(ENCODED.entries["a"]) == "float16[10, 10], of which 100 changes go up as int8, 108 bytes"
    assert str(ENCODED.entries["b"]) == "float16[3]"


@pytest.mark.parametrize(
    "value",
    [
        np.full((10, 10), SECRET, np.float16),
        np.full(108, 77, np.int8),
        np.full((1, 108), 77, np.uint8),
        np.full(107, 77, np.uint8),
        np.full(108, 77, np.uint8),
        b"7" * 108,
        "7" * 108,
        {"codes": np.full(100, 77, np.int8), "scales": np.full(2, SECRET, np.float32)},
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}{getattr(value, 'shape', '')}",
)
def test_what_is_not_the_declared_encoding_is_refused_and_named(value: Any) -> None:
    assert "'a'" in refusal(ENCODED.up, {**changes_of(ENCODED), "a": value})


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_scale_that_is_no_scale_is_refused_and_its_key_named(value: float) -> None:
    payload = changes_of(ENCODED)
    payload["a"][:4] = np.array([value], "<f4").view(np.uint8)
    assert "'a'" in refusal(ENCODED.up, payload)


@pytest.mark.parametrize("key", ["a.scales", "a/codes", "a_indices", "residual"])
def test_nothing_travels_beside_the_changes(key: str) -> None:
    assert repr(key) in refusal(ENCODED.up, {**changes_of(ENCODED), key: np.zeros(2, np.float32)})


def test_a_tensor_itself_is_refused_where_its_changes_are_declared_and_the_other_way_round() -> None:
    plain = Manifest({key: Entry(entry.shape, entry.dtype) for key, entry in ENCODED.entries.items()})
    assert "'a'" in refusal(ENCODED.up, make_payload(plain))
    assert "'a'" in refusal(plain.up, changes_of(ENCODED))
    assert "'a'" in refusal(ENCODED.down, changes_of(ENCODED))


@pytest.mark.parametrize(
    ("encoding", "travels"),
    [
        (None, "both"),
        ("int8", "both"),
        ({}, "both"),
        ({"values": "int8"}, "both"),
        ({"values": "int4", "kept": 1.0}, "both"),
        ({"values": "int8", "kept": 0.0}, "both"),
        ({"values": "int8", "kept": 1.0, "also": "text"}, "both"),
        ({"values": "int8", "kept": 1.0}, "down"),
    ],
    ids=str,
)
def test_a_manifest_with_another_encoding_is_refused(encoding: Any, travels: str) -> None:
    with pytest.raises(PrivacyError, match="not a manifest of shared tensors: 'a'"):
        Manifest.from_json({"a": {"shape": [9], "dtype": "float16", "travels": travels, "encoding": encoding}})


def test_decoded_tensors_are_what_was_sent_plus_the_change() -> None:
    sent = make_payload(ENCODED.down)
    payload = changes_of(ENCODED)
    decoded = ENCODED.up.open(payload, sent)
    np.testing.assert_array_equal(decoded["a"], sent["a"].astype(np.float64) + INT8.decode(payload["a"], (10, 10)))
    assert decoded["b"] is payload["b"]
    np.testing.assert_array_equal(ENCODED.up.open(payload, {})["a"], INT8.decode(payload["a"], (10, 10)))


def test_a_change_beyond_the_range_of_its_tensor_is_refused_and_named() -> None:
    """It would be infinite on its way down."""
    payload = {**changes_of(ENCODED), "a": INT8.encode(np.full((10, 10), 600.0))}
    ENCODED.up.open(payload, {"a": np.full((10, 10), 64000, np.float16)})
    with pytest.raises(PrivacyError, match=r"'a'.*float16"):
        ENCODED.up.open(payload, {"a": np.full((10, 10), 65000, np.float16)})


def encoded_dual(encoding: Encoding) -> tuple[nn.Module, Scope]:
    network, method = tiny_network(), get_method("dual_lora")
    method.attach(network)
    scope = method.scope(network, wire_dtype="float16")
    return network, Scope(scope.roles, scope.manifest.encoded(encoding))


def moved(network: nn.Module, scope: Scope, seed: int) -> None:
    """Train, as it were."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key in scope.keys(Role.SHARED):
            parameter = network.get_parameter(key)
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(
    "encoding", [INT8, Encoding(values="int8", kept=0.1), Encoding(values="float16", kept=0.1)], ids=str
)
def test_rounds_of_updates_add_up_to_the_true_changes(encoding: Encoding) -> None:
    """A server that adds up what it reads has, but for the memory, what the site's network has."""
    network, scope = encoded_dual(encoding)
    assert any(entry.encoding for entry in scope.manifest.up.entries.values())
    sent, residual = scope.initial_payload(network), {}
    scope.load_shared(network, sent)
    wanted = {key: value.astype(np.float64) for key, value in sent.items()}
    for number in range(5):
        before = {key: network.state_dict()[key].numpy().astype(np.float64) for key in sent}
        moved(network, scope, number)
        wanted = {key: wanted[key] + network.state_dict()[key].numpy() - before[key] for key in sent}
        payload, residual = scope.update(network, sent=sent, residual=residual)
        sent = scope.manifest.up.open(payload, sent)
        with torch.no_grad():
            for key, value in sent.items():
                network.get_parameter(key).copy_(torch.from_numpy(value))
    for key, entry in scope.manifest.up.entries.items():
        if entry.encoding is None:
            assert key not in residual
        else:
            np.testing.assert_allclose(sent[key] + residual[key], wanted[key], atol=1e-6)


def test_what_diverged_is_refused_before_it_is_encoded() -> None:
    network, scope = encoded_dual(INT8)
    key = next(key for key, entry in scope.manifest.up.entries.items() if entry.encoding)
    with torch.no_grad():
        network.get_parameter(key).view(-1)[0] = float("nan")
    with pytest.raises(PrivacyError, match=re.escape(repr(key)) + ".*NaN"):
        scope.update(network, sent={}, residual={})
