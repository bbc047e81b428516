"""Encoded updates from site to server: gates, averages, every method, the memory across processes, and the bytes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nvflare.apis.dxo import DataKind
from nvflare.apis.filter import ContentBlockedException, FilterChainType, FilterContextKey
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from monai_fedlora.encoding import Encoding
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.federated.aggregation import Refusal, SharedAverage
from monai_fedlora.federated.executor import SiteExecutor
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.flare_context import TRAIN_TASK, open_message, weights_message
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import load_tensors, write_json
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.methods.rules import factor_keys
from monai_fedlora.scope import Entry, Manifest, Scope
from tests.federated.conftest import Prepared, same_bits
from tests.federated.test_server import Server
from tests.helpers import fast_in_part, make_payload, make_plan, make_update, tiny_network
from tests.methods.federation import aggregated, attached, trained

Payload = dict[str, np.ndarray]
INT8 = Encoding(values="int8")
SPARSE = Encoding(values="int8", kept=0.1)
PLAIN = Manifest({"a": Entry((10, 10), "float16"), "b": Entry((70,), "float16"), "c": Entry((), "float16")})
SITES = ("east", "north", "south")
REPORT = {"round": 0, "cases": 10}


def changes(manifest: Manifest, seed: int) -> Payload:
    """A legal payload upwards."""
    generator, payload = np.random.default_rng(seed), {}
    for key, entry in manifest.up.entries.items():
        values = 0.1 * generator.normal(size=entry.shape)
        payload[key] = entry.encoding.encode(values) if entry.encoding else np.array(values, entry.dtype)
    return payload


def opened(encoding: Encoding = INT8, *, limit: float = 1e3) -> SharedAverage:
    average = SharedAverage(
        method=get_method("fedit"), manifest=PLAIN.encoded(encoding), sites=SITES, max_update_rms=limit
    )
    average.begin(0, make_payload(PLAIN, seed=99))
    return average


# ---- the server's sum -----------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.sampled_from([INT8, SPARSE, Encoding(values="float16", kept=0.3)]), st.integers(0, 1000))
def test_the_average_is_what_was_sent_plus_the_weighted_changes(encoding: Encoding, seed: int) -> None:
    average, sent, cases = opened(encoding), make_payload(PLAIN, seed=99), (10, 30, 60)
    payloads = [changes(average.manifest, seed + index) for index in range(3)]
    for site, payload, count in zip(SITES, payloads, cases, strict=True):
        average.accept(site, make_update(payload, {**REPORT, "cases": count}))
    result = average.aggregate()
    for key, entry in average.manifest.entries.items():
        if entry.encoding is None:
            expected = np.average([payload[key].astype(np.float64) for payload in payloads], axis=0, weights=cases)
        else:
            read = [entry.encoding.decode(payload[key], entry.shape) for payload in payloads]
            expected = sent[key].astype(np.float64) + np.average(read, axis=0, weights=cases)
        np.testing.assert_allclose(result[key], expected, rtol=1e-3, atol=1e-6)
        assert result[key].dtype == np.float16


def bad_changes() -> Iterator[tuple[str, Payload]]:
    good = changes(PLAIN.encoded(INT8), 1)
    yield "undeclared", {**good, "a.scales": np.zeros(2, np.float32)}
    yield "missing", {key: good[key] for key in "ab"}
    yield "'a'", {**good, "a": good["a"][:-1]}
    yield "'a'", {**good, "a": good["a"].view(np.int8)}
    yield "'a'", {**good, "a": make_payload(PLAIN)["a"]}
    yield "'b'", {**good, "b": np.concatenate([np.full(4, 255, np.uint8), good["b"][4:]])}
    yield "'b'", {**good, "b": np.full_like(good["b"], 128)}
    yield "'a' changed", {**good, "a": INT8.encode(np.full((10, 10), 1e5))}


@pytest.mark.parametrize(("named", "payload"), [*bad_changes()])
def test_what_is_not_encoded_as_declared_is_refused_and_the_others_get_their_average(
    named: str, payload: Payload
) -> None:
    average, clean = opened(limit=1e6), opened()
    with pytest.raises(Refusal, match=named):
        average.accept("north", make_update(payload, REPORT))
    for server in (average, clean):
        server.accept("south", make_update(changes(server.manifest, 2), REPORT))
    assert same_bits(average.aggregate(), clean.aggregate())


@pytest.mark.parametrize(("limit", "accepted"), [(0.51, True), (0.49, False)])
def test_the_limit_of_a_change_holds_for_decoded_values(limit: float, accepted: bool) -> None:
    average, sent = opened(limit=limit), make_payload(PLAIN, seed=99)
    payload = {
        key: np.array(sent[key] + np.float16(0.5)) if entry.encoding is None else INT8.encode(np.full(entry.shape, 0.5))
        for key, entry in average.manifest.entries.items()
    }
    if accepted:
        average.accept("north", make_update(payload, REPORT))
    else:
        with pytest.raises(Refusal, match=r"by 0.5 \(rms\)"):
            average.accept("north", make_update(payload, REPORT))


# ---- the gates ------------------------------------------------------------------------------------------


def gate_of(folder: Path, manifest: Manifest, chain: str, direction: str) -> Any:
    write_json(folder / "config" / "manifest.json", manifest.to_json())
    context, shared_only = FLContext(), SharedOnly()
    context.set_prop(FLContextKey.APP_ROOT, str(folder), private=True, sticky=False)
    context.set_prop(FLContextKey.FILTER_DIRECTION, direction, private=True, sticky=False)
    shared_only.set_prop(FilterContextKey.CHAIN_TYPE, chain)
    return lambda payload: shared_only.process(weights_message(payload), context)


@pytest.mark.parametrize("direction", [FilterKey.OUT, FilterKey.IN])
def test_both_ends_see_and_check_the_bytes_that_travel(tmp_path: Path, direction: str) -> None:
    manifest = PLAIN.encoded(INT8)
    up = gate_of(tmp_path, manifest, FilterChainType.TASK_RESULT_CHAIN, direction)
    passed = open_message(up(changes(manifest, 0)), DataKind.WEIGHTS).data
    assert same_bits(passed, changes(manifest, 0))
    for named, payload in bad_changes():
        if "changed" not in named:  # that it leaves the range is seen where the reference is known
            with pytest.raises(ContentBlockedException, match=named):
                up(payload)
    down = gate_of(tmp_path, manifest, FilterChainType.TASK_DATA_CHAIN, direction)
    assert down(make_payload(PLAIN))
    with pytest.raises(ContentBlockedException, match="'a'"):
        down(changes(manifest, 0))


def test_a_gate_that_approved_tensors_lets_no_changes_through(tmp_path: Path) -> None:
    """Nor the other way round: a site approves an encoding with the manifest."""
    gate = gate_of(tmp_path, PLAIN, FilterChainType.TASK_RESULT_CHAIN, FilterKey.OUT)
    with pytest.raises(ContentBlockedException, match="'a'"):
        gate(changes(PLAIN.encoded(INT8), 0))
    gate = gate_of(tmp_path, PLAIN.encoded(SPARSE), FilterChainType.TASK_RESULT_CHAIN, FilterKey.OUT)
    with pytest.raises(ContentBlockedException, match="'a'"):
        gate(changes(PLAIN.encoded(INT8), 0))


@given(st.data(), st.sampled_from([INT8, SPARSE, Encoding(values="float16", kept=0.3)]), st.integers(0, 1000))
def test_whatever_a_gate_lets_through_opens_to_finite_tensors_and_the_rest_changes_nothing(
    data: st.DataObject, encoding: Encoding, seed: int
) -> None:
    """Bytes of a legal update are overwritten; a gate, which decodes nothing, and the server judge them alike."""
    average, sent = opened(encoding, limit=float("inf")), make_payload(PLAIN, seed=99)
    payload, up = changes(average.manifest, seed), average.manifest.up
    for _ in range(data.draw(st.integers(1, 4))):
        raw = payload[data.draw(st.sampled_from(sorted(payload)))].reshape(-1).view(np.uint8)
        raw[data.draw(st.integers(0, raw.size - 1))] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    before = {key: array.copy() for key, array in payload.items()}
    try:
        up.check(payload)
    except PrivacyError:
        with pytest.raises(PrivacyError):
            up.open(payload, sent)
        with pytest.raises(Refusal):
            average.accept("north", make_update(payload, REPORT))
        assert not average.updates
        assert same_bits(average.aggregate(), sent)
    else:
        try:
            tensors = up.open(payload, sent)
        except PrivacyError as error:  # of the server alone, which knows what the change was one from
            assert "changed to values that float16 cannot hold" in str(error)
        else:
            assert {key: tensor.shape for key, tensor in tensors.items()} == {
                key: entry.shape for key, entry in PLAIN.entries.items()
            }
            assert all(np.isfinite(tensor).all() for tensor in tensors.values())
            average.accept("north", make_update(payload, REPORT))
            assert same_bits(dict(average.updates["north"].tensors), tensors)
    assert same_bits(payload, before)


# ---- every method ---------------------------------------------------------------------------------------

VARIANTS = {
    **{name: {} for name in method_names() if not get_method(name).reads_text},
    "pfedst-linear": {"classifier": "linear"},
    "fedit-product": {"averaging": "product"},
    "flexlora-ranks": {"ranks": [2, 5]},
    "flora-ranks": {"ranks": [2, 5]},
}


def effects(tensors: Payload, reference: Payload, products: bool) -> Payload:
    """What tensors change: by products of factors where these are factored anew, else each by itself."""
    pairs = factor_keys(tensors) if products else []
    found = {pair[0]: tensors[pair[1]].astype(np.float64) @ tensors[pair[0]] for pair in pairs}
    rest = tensors.keys() - {key for pair in pairs for key in pair}
    return found | {key: tensors[key].astype(np.float64) - reference[key] for key in rest}


@pytest.mark.parametrize("variant", fast_in_part(VARIANTS))
def test_a_method_combines_encoded_updates_nearly_as_it_does_the_tensors(variant: str) -> None:
    method = get_method(variant.partition("-")[0], VARIANTS[variant])
    networks = [trained(method, "vit", seed=seed).network for seed in (3, 4)]
    scope = method.scope(networks[0])
    encoded = Scope(scope.roles, scope.manifest.encoded(INT8))
    reference = scope.initial_payload(attached(method, "vit"))
    tensors = [scope.shared_payload(network) for network in networks]
    sent = [encoded.update(network, sent=reference, residual={})[0] for network in networks]
    for payload, true in zip(sent, tensors, strict=True):
        for key, value in encoded.manifest.up.open(payload, reference).items():
            change = np.abs(true[key].astype(np.float64) - reference.get(key, 0.0))
            assert np.abs(value - true[key]).max() <= change.max() / 127 / 2 * 1.001
    expected, got = (
        aggregated(method, known, {"one": (10, first), "two": (30, second)}, reference)
        for known, (first, second) in ((scope, tensors), (encoded, sent))
    )
    assert got.keys() == scope.manifest.down.entries.keys()
    products = any(method.starts_over(key, networks[0]) for key in got)
    exact = effects(expected, reference, products)
    for key, effect in effects(got, reference, products).items():
        assert np.linalg.norm(effect - exact[key]) <= 0.03 * np.linalg.norm(exact[key]) + 1e-12


@pytest.mark.parametrize(
    ("method", "settings"), [("flora", {}), ("flexlora", {}), ("dual_lora", {"averaging": "product"})]
)
def test_the_largest_changes_alone_are_refused_where_the_others_could_never_follow(
    method: str, settings: dict[str, Any]
) -> None:
    plan = make_plan(method=method, method_args=settings, top_k=0.1)
    network = tiny_network()
    plan.build_method().attach(network)
    with pytest.raises(ConfigError, match=rf"top_k is 0.1, but {method} starts .*lora_A.* anew"):
        plan.scope(network)
    dense = make_plan(method=method, method_args=settings, wire_dtype="int8").scope(network).manifest.up.entries
    assert INT8 in {entry.encoding for entry in dense.values()}


@pytest.mark.parametrize(
    ("settings", "encoding", "dtype"),
    [
        ({}, None, "float16"),
        ({"wire_dtype": "int8"}, INT8, "float16"),
        ({"wire_dtype": "int8", "top_k": 0.1}, SPARSE, "float16"),
        ({"top_k": 0.2}, Encoding(values="float16", kept=0.2), "float16"),
        ({"wire_dtype": "float32", "top_k": 0.2}, Encoding(values="float32", kept=0.2), "float32"),
    ],
    ids=str,
)
def test_a_plan_says_how_its_sites_encode(settings: dict[str, Any], encoding: Encoding | None, dtype: str) -> None:
    plan, network = make_plan(**settings), tiny_network()
    plan.build_method().attach(network)
    entries = plan.scope(network).manifest.entries.values()
    assert {entry.dtype for entry in entries} == {dtype}
    assert encoding in {entry.encoding for entry in entries}
    assert {entry.encoding for entry in entries} <= {encoding, None}


def test_eight_bits_take_half_the_bytes_of_a_base_sized_backbone() -> None:
    with torch.device("meta"):
        network = build_network(size="base", out_chans=2, backbone=UNTRAINED, method="dual_lora", method_args={})
    half, eight, sparse = (
        make_plan(size="base", **settings).scope(network).manifest
        for settings in ({}, {"wire_dtype": "int8"}, {"wire_dtype": "int8", "top_k": 0.1})
    )
    assert half.up.nbytes == half.down.nbytes == eight.down.nbytes == sparse.down.nbytes
    assert eight.up.nbytes / half.up.nbytes == pytest.approx(0.53, abs=0.005)
    assert sparse.up.nbytes / half.up.nbytes == pytest.approx(0.116, abs=0.005)


# ---- sites ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(prepared: Prepared) -> Plan:
    return prepared.plan(sites=("site-1",), wire_dtype="int8", top_k=0.1, rounds=2)


@pytest.fixture(scope="module")
def whole(plan: Plan, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run in one process."""
    folder = tmp_path_factory.mktemp("whole")
    results = run_in_process(plan, folder=folder, **prepared.places)
    assert results["refused"] == []
    assert results["payload_bytes"] == build_shared(plan)[0].up.nbytes
    return folder


def residual(folder: Path, number: int) -> dict[str, torch.Tensor]:
    (path,) = (folder / "trial" / "site-1").glob(f"*-{number:05d}.safetensors")
    tensors = load_tensors(path)[0]
    return {key.removeprefix("residual/"): value for key, value in tensors.items() if key.startswith("residual/")}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each message was decoded since the test began."""
    counts: Counter[bytes] = Counter()
    decode = Encoding.decode

    def counted(self: Encoding, message: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        counts[message.tobytes()] += 1
        return decode(self, message, shape)

    monkeypatch.setattr(Encoding, "decode", counted)
    return counts


@pytest.mark.slow
def test_executors_that_start_anew_for_each_round_compute_the_run_in_one_process(
    plan: Plan,
    whole: Path,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoded: Counter[bytes],
) -> None:
    """Through the site's own gate and both of the job, to the bit, the memory included.

    No gate decodes, and the server does so once; what the site decodes, its own process does.
    """
    manifest, _ = build_shared(plan)
    write_job(plan, manifest, tmp_path / "job")
    for name, value in {**prepared.environment, "MONAI_FEDLORA_PRIVATE_DIR": str(tmp_path / "private")}.items():
        monkeypatch.setenv(name, value)
    context = FLContext()
    places = {
        FLContextKey.APP_ROOT: str(tmp_path / "job" / "app"),
        FLContextKey.WORKSPACE_ROOT: str(tmp_path / "workspace"),
        FLContextKey.FILTER_DIRECTION: FilterKey.OUT,
        ReservedKey.IDENTITY_NAME: "site-1",
    }
    for key, value in places.items():
        context.set_prop(key, value, private=True, sticky=False)
    own = SharedOnly(manifest=str(tmp_path / "job" / "app" / "config" / "manifest.json"), classes=2)
    gates = own, SharedOnly()
    for gate in gates:
        gate.set_prop(FilterContextKey.CHAIN_TYPE, FilterChainType.TASK_RESULT_CHAIN)
    server = Server(tmp_path / "server", plan, manifest)
    shared = server.start()
    encoded = sum(entry.encoding is not None for entry in manifest.up.entries.values())
    for number in range(plan.rounds):
        server.open(number)
        task = weights_message(shared)
        task.set_header(AppConstants.CURRENT_ROUND, number)
        message = SiteExecutor().execute(TRAIN_TASK, task, context, Signal())
        for gate in gates:
            message = gate.process(message, context)
        sent = open_message(message, DataKind.WEIGHTS).data
        assert sum(array.nbytes for array in sent.values()) == manifest.up.nbytes
        assert not decoded
        assert server.answer("site-1", server.submit("site-1", message))
        assert sum(decoded.values()) == encoded
        decoded.clear()
        shared = server.close()
    stored = load_tensors(whole / "shared.safetensors")[0]
    assert stored.keys() == shared.keys()
    assert all(torch.equal(stored[key], torch.from_numpy(value)) for key, value in shared.items())
    last = f"trial/site-1/*-{plan.rounds - 1:05d}.safetensors"
    (mine,), (theirs,) = ((folder / "private").glob(last) for folder in (tmp_path, whole))
    assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_a_round_in_one_process_decodes_an_update_once_at_each_end(
    plan: Plan, prepared: Prepared, tmp_path: Path, decoded: Counter[bytes]
) -> None:
    plan = dataclasses.replace(plan, rounds=1)
    run_in_process(plan, folder=tmp_path, **prepared.places)
    entries = build_shared(plan)[0].up.entries.values()
    assert sum(decoded.values()) == 2 * sum(entry.encoding is not None for entry in entries)


@pytest.mark.slow
def test_the_memory_is_kept_with_the_round_and_is_what_was_not_sent(
    plan: Plan, whole: Path, prepared: Prepared, tmp_path: Path
) -> None:
    manifest, shared = build_shared(plan)
    site = Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source)
    update = site.train_round(0, shared)
    decoded = manifest.up.open(update.tensors, shared)
    state = site.network.state_dict()
    kept = residual(tmp_path, 0)
    assert kept.keys() == {key for key, entry in manifest.entries.items() if entry.encoding}
    for key, rest in kept.items():
        np.testing.assert_allclose(state[key].numpy() - decoded[key], rest.numpy(), atol=1e-8)
        assert rest.any()
    assert any(not torch.equal(rest, residual(whole / "private", 1)[key]) for key, rest in kept.items())
    final = load_tensors(whole / "private" / "trial" / "site-1" / "final.safetensors")[0]
    assert not [key for key in final if "residual" in key]


@pytest.mark.slow
def test_what_was_left_over_is_sent_the_next_time(plan: Plan, prepared: Prepared, tmp_path: Path) -> None:
    """With next to no training, a round sends the largest of what the rounds before left out."""
    manifest, shared = build_shared(plan)
    Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source).train_round(0, shared)
    before = residual(tmp_path, 0)
    changes = {"training": {**plan.training, "learning_rate": 1e-12}, "changed": ("training.learning_rate",)}
    still = dataclasses.replace(plan, **changes)
    update = Site(name="site-1", plan=still, private_root=tmp_path, source=prepared.source).train_round(1, shared)
    for key, value in manifest.up.open(update.tensors, shared).items():
        if key in before:
            sent = value - shared[key]
            assert sent.any()
            np.testing.assert_allclose(sent + residual(tmp_path, 1)[key].numpy(), before[key].numpy(), atol=1e-8)


@pytest.mark.slow
def test_round_zero_forgets_what_was_left_over(plan: Plan, whole: Path, prepared: Prepared, tmp_path: Path) -> None:
    shared = build_shared(plan)[1]
    site = Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source)
    first = site.train_round(0, shared)
    site.train_round(1, shared)
    again = site.train_round(0, shared)
    assert same_bits(first.tensors, again.tensors)
    assert (site.store.rounds(), site.store.rounds("answered")) == ([], [0])


@pytest.mark.slow
def test_a_run_that_goes_on_without_encoding_forgets_it_too(plan: Plan, prepared: Prepared, tmp_path: Path) -> None:
    shared = build_shared(plan)[1]
    Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source).train_round(0, shared)
    plain = dataclasses.replace(plan, wire_dtype="float16", top_k=1.0, changed=("top_k", "wire_dtype"))
    update = Site(name="site-1", plan=plain, private_root=tmp_path, source=prepared.source).train_round(1, shared)
    build_shared(plain)[0].check(update.tensors)
    assert residual(tmp_path, 0) and not residual(tmp_path, 1)


@pytest.mark.slow
def test_factors_that_start_anew_have_no_memory(prepared: Prepared, tmp_path: Path) -> None:
    plan = prepared.plan(sites=("site-1",), method="flora", wire_dtype="int8")
    site = Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source)
    shared = build_shared(plan)[1]
    site.train_round(0, shared)
    assert any("lora_" in key for key in residual(tmp_path, 0))
    site._open(1, shared, None)
    assert site._residual
    assert not [key for key in site._residual if "lora_" in key]


@pytest.mark.slow
def test_a_memory_of_another_size_is_refused_and_named(plan: Plan, prepared: Prepared, tmp_path: Path) -> None:
    shared = build_shared(plan)[1]
    site = Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source)
    site.train_round(0, shared)
    key = sorted(site._residual)[0]
    site._residual = {**site._residual, key: np.zeros((1, 1), np.float32)}
    with pytest.raises(PrivacyError, match="another size"):
        site.train_round(1, shared)
    assert (site.store.rounds(), site.store.rounds("answered")) == ([0], [])
