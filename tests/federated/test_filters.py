"""The gate lets exact messages through, strips errors to their code, and blocks everything else whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.filter import ContentBlockedException, FilterChainType, FilterContextKey
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.flare_context import metrics_message, open_message, readiness_message, weights_message
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.files import write_json
from tests.helpers import make_manifest, make_payload, make_plan

MANIFEST = make_manifest()
REPORT = {"round": 3, "cases": 12, "seconds": 1.5, "validation": {"personal": {"auroc": 0.75, "n": 4}}}
SECRET = "patient007"


@pytest.fixture(scope="module")
def fl_ctx(tmp_path_factory: pytest.TempPathFactory) -> FLContext:
    root = tmp_path_factory.mktemp("app")
    write_json(root / "config" / "manifest.json", MANIFEST.to_json())
    write_json(root / "config" / "plan.json", make_plan().to_json())
    context = FLContext()
    context.set_prop(FLContextKey.APP_ROOT, str(root), private=True, sticky=False)
    return context


Gate = Callable[[Any], Shareable]


@pytest.fixture(scope="module")
def gate(fl_ctx: FLContext) -> Gate:
    shared_only = SharedOnly()
    return lambda message: shared_only.process(message, fl_ctx)


def good() -> Shareable:
    return weights_message(make_payload(MANIFEST), copy.deepcopy(REPORT))


def blocked(gate: Gate, message: Any) -> str:
    with pytest.raises(ContentBlockedException) as caught:
        gate(message)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


# ---- what passes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        good,
        lambda: weights_message(make_payload(MANIFEST)),
        lambda: metrics_message(REPORT),
        lambda: metrics_message({}),
    ],
    ids=["update", "task", "metrics", "no metrics"],
)
def test_an_exact_message_passes_unchanged(gate: Gate, message: Callable[[], Shareable]) -> None:
    sent = message()
    before = copy.deepcopy(dict(sent))
    passed = gate(sent)
    assert passed is sent
    np.testing.assert_equal(dict(passed), before)


@given(st.integers(0, 2**31 - 1))
def test_every_payload_of_the_manifest_passes(gate: Gate, seed: int) -> None:
    assert open_message(gate(weights_message(make_payload(MANIFEST, seed), REPORT)), DataKind.WEIGHTS).data


CODES = sorted(value for name, value in vars(ReturnCode).items() if name.isupper() and value != ReturnCode.OK)


@pytest.mark.parametrize("code", CODES)
def test_an_error_reply_is_stripped_to_its_code(gate: Gate, code: str) -> None:
    message = good()
    message.set_return_code(code)
    message.set_header(ReservedHeaderKey.ERROR, SECRET)
    message["traceback"] = SECRET
    passed = gate(message)
    assert dict(passed) == {ReservedHeaderKey.HEADERS: {ReservedHeaderKey.RC: code}}


def test_a_sites_readiness_passes_and_who_asks_for_it_says_nothing(fl_ctx: FLContext) -> None:
    said = Readiness(codes=("DISK_FULL",), versions={"torch": "2.13.0"}, bundle="0123abcd", free_mb=12)
    for chain, message, passes in (
        (FilterChainType.TASK_RESULT_CHAIN, readiness_message(said), True),
        (FilterChainType.TASK_DATA_CHAIN, readiness_message(), True),
        (FilterChainType.TASK_DATA_CHAIN, readiness_message(said), False),
        (FilterChainType.TASK_RESULT_CHAIN, DXO(DataKind.STATISTICS, data={"codes": [SECRET]}).to_shareable(), False),
        (FilterChainType.TASK_RESULT_CHAIN, DXO(DataKind.STATISTICS, data={"a": 1}, meta={}).to_shareable(), False),
    ):
        shared_only = SharedOnly()
        shared_only.set_prop(FilterContextKey.CHAIN_TYPE, chain)
        through = partial(shared_only.process, fl_ctx=fl_ctx)
        if passes:
            assert through(message) is message
        else:
            blocked(through, message)


# ---- what is blocked ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [SECRET, f"ERROR {SECRET}", "error", 7, ["ERROR"], {"a": 1}, b"ERROR", np.ones(2)])
def test_a_return_code_of_ones_own_is_blocked(gate: Gate, code: Any) -> None:
    blocked(gate, make_reply(code))


def with_data(**changes: Any) -> Shareable:
    return weights_message({**make_payload(MANIFEST), **changes}, REPORT)


def with_dxo(**changes: Any) -> Shareable:
    message = good()
    message["DXO"].update(changes)
    return message


def with_meta(**changes: Any) -> Shareable:
    message = good()
    message["DXO"]["meta"].update(changes)
    return message


def with_part(key: Any, value: Any) -> Shareable:
    message = good()
    message[key] = value
    return message


def without(key: str) -> Shareable:
    message = good()
    del message[key]
    return message


MESSAGES: dict[str, Callable[[], Any]] = {
    "undeclared tensor": lambda: with_data(secret=np.zeros(3, np.float32)),
    "private tensor": lambda: with_data(**{"q.lora_A.private.weight": np.zeros(3, np.float32)}),
    "missing tensor": lambda: weights_message({"a": make_payload(MANIFEST)["a"]}, REPORT),
    "nan": lambda: with_data(c=np.array(np.nan, np.float32)),
    "infinity": lambda: with_data(c=np.array(np.inf, np.float32)),
    "shape": lambda: with_data(c=np.zeros(1, np.float32)),
    "dtype": lambda: with_data(c=np.array(0, np.float64)),
    "object array": lambda: with_data(c=np.array(SECRET, dtype=object)),
    "list as tensor": lambda: with_data(a=[[0.0] * 3] * 2),
    "nested mapping as tensor": lambda: with_data(a={"deeper": {"yet": SECRET}}),
    "text as tensor": lambda: with_data(c=SECRET),
    "data is a list": lambda: with_dxo(data=list(make_payload(MANIFEST).values())),
    "data is a nested list": lambda: with_dxo(data=[[SECRET], [[make_payload(MANIFEST)]]]),
    "data is text": lambda: with_dxo(data=SECRET),
    "no data": lambda: with_dxo(data=None),
    "weight difference": lambda: with_dxo(kind=DataKind.WEIGHT_DIFF),
    "collection": lambda: with_dxo(kind=DataKind.COLLECTION, data={"x": DXO(DataKind.WEIGHTS, make_payload(MANIFEST))}),
    "analytics": lambda: with_dxo(kind=DataKind.ANALYTIC, data={"loss": 0.5}),
    "whole model": lambda: with_dxo(kind=DataKind.FL_MODEL),
    "app-defined": lambda: with_dxo(kind=DataKind.APP_DEFINED, data=SECRET),
    "kind is text": lambda: with_dxo(kind=SECRET),
    "kind is a list": lambda: with_dxo(kind=[SECRET]),
    "no kind": lambda: with_dxo(kind=None),
    "an extra entry beside data": lambda: with_dxo(note=SECRET),
    "meta entry": lambda: with_meta(note=SECRET),
    "filter history": lambda: with_meta(filter_history=["Other"]),
    "number of steps": lambda: with_meta(NUM_STEPS_CURRENT_ROUND=3),
    "meta is a list": lambda: with_dxo(meta=[SECRET]),
    "text in the report": lambda: with_meta(report={**REPORT, "note": SECRET}),
    "text as metric": lambda: with_meta(report={"validation": {"personal": {"auroc": SECRET}}}),
    "report is text": lambda: with_meta(report=SECRET),
    "report is a list": lambda: with_meta(report=[REPORT]),
    "report is nothing": lambda: with_meta(report=None),
    "a number beyond all floats": lambda: with_meta(report={"cases": 10**400}),
    "top-level part": lambda: with_part("note", SECRET),
    "top-level part of another type": lambda: with_part(7, SECRET),
    "no content": lambda: without("DXO"),
    "no headers": lambda: without(ReservedHeaderKey.HEADERS),
    "content is text": lambda: with_part("DXO", SECRET),
    "content is a list": lambda: with_part("DXO", [SECRET]),
    "headers are text": lambda: with_part(ReservedHeaderKey.HEADERS, SECRET),
    "empty": Shareable,
    "empty with code": lambda: make_reply(ReturnCode.OK),
    "a plain mapping": lambda: dict(good()),
    "a list": lambda: [good()],
    "text": lambda: SECRET,
    "nothing": lambda: None,
    "metrics with text": lambda: metrics_message({"test": {"personal": {"auroc": SECRET}}}),
    "metrics with tensors": lambda: metrics_message(make_payload(MANIFEST)),
    "metrics with meta": lambda: DXO(DataKind.METRICS, data=REPORT, meta={"note": SECRET}).to_shareable(),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_that_is_not_exact_is_blocked(gate: Gate, kind: str) -> None:
    blocked(gate, MESSAGES[kind]())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(np.zeros((2, 3), "f4")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["part", "content", "dxo", "kind", "data", "meta", "tensor", "metric", "report"]), anything)
def test_nothing_can_be_hidden_anywhere(gate: Gate, place: str, value: Any) -> None:
    """Whatever is put wherever, a message that passes says no more than the manifest and the report may."""
    message = good()
    if place == "part":
        message["hidden"] = value
    elif place == "content":
        message["DXO"] = value
    elif place == "dxo":
        message["DXO"]["hidden"] = value
    elif place in ("kind", "data", "meta"):
        message["DXO"][place] = value
    elif place == "tensor":
        message["DXO"]["data"]["b.weight"] = value
    elif place == "metric":
        message["DXO"]["meta"]["report"]["validation"]["personal"]["hidden"] = value
    else:
        message["DXO"]["meta"]["report"] = value
    try:
        passed = gate(message)
    except ContentBlockedException:
        return
    assert place in ("meta", "report")
    assert value is None or value == {}
    assert set(passed) == {ReservedHeaderKey.HEADERS, "DXO"}


class Unknown:
    """Of a class that no other end knows."""


@dataclass
class UnknownData:
    value: int = 7


class UnknownName(Enum):
    A = "a"


undecodable = st.sampled_from(
    [
        Unknown(),
        UnknownData(),
        UnknownName.A,
        np.array([SECRET, None], dtype=object),
        np.array([(1, "a")], dtype=[("number", int), ("text", object)]),
        {"__fobs_type__": "nobody.Knows", "__fobs_data__": {}},
    ]
)
wrapped = (
    undecodable | st.builds(lambda value: [value], undecodable) | st.builds(lambda value: {"a": value}, undecodable)
)
PLACES: Sequence[Callable[[Shareable, Any], Any]] = (
    lambda message, value: message.update(hidden=value),
    lambda message, value: message.update(DXO=value),
    lambda message, value: message["DXO"].update(kind=value),
    lambda message, value: message["DXO"].update(data=value),
    lambda message, value: message["DXO"].update(meta=value),
    lambda message, value: message["DXO"]["data"].update(a=value),
    lambda message, value: message["DXO"]["data"].update(hidden=value),
    lambda message, value: message["DXO"]["meta"].update(report=value),
    lambda message, value: message["DXO"]["meta"]["report"].update(cases=value),
    lambda message, value: message["DXO"]["meta"]["report"]["validation"]["personal"].update(auroc=value),
    lambda message, value: message.set_return_code(value),
    lambda message, value: message.set_header("hidden", value),
    lambda message, value: message.set_header(ReservedHeaderKey.CONTENT_TYPE, value),
    lambda message, value: message.add_cookie("hidden", value),
    lambda message, value: message.set_peer_context(value),
)
KNOWN = (type(None), bool, int, float, str, bytes, DataKind)


@given(place=st.sampled_from(range(len(PLACES))), value=wrapped)
def test_what_leaves_a_site_is_of_classes_that_every_end_can_decode(fl_ctx: FLContext, place: int, value: Any) -> None:
    """NVFlare ends the server's process of a job that cannot decode an answer."""
    message = good()
    PLACES[place](message, value)
    blocked(directed(fl_ctx, FilterChainType.TASK_RESULT_CHAIN, FilterKey.OUT), message)


@given(st.sampled_from(range(len(PLACES))), wrapped | anything)
def test_what_passes_is_made_of_plain_values_and_numeric_arrays(fl_ctx: FLContext, place: int, value: Any) -> None:
    message = good()
    PLACES[place](message, value)
    try:
        passed = directed(fl_ctx, FilterChainType.TASK_RESULT_CHAIN, FilterKey.OUT)(message)
    except ContentBlockedException:
        return
    left: list[Any] = [passed]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            assert "__fobs_type__" not in part
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            left += part
        elif isinstance(part, np.ndarray):
            assert type(part) is np.ndarray and part.dtype.kind in "fiu"
        else:
            assert type(part) in KNOWN


# ---- headers --------------------------------------------------------------------------------------------


def directed(fl_ctx: FLContext, chain: str, direction: str) -> Gate:
    shared_only = SharedOnly()
    shared_only.set_prop(FilterContextKey.CHAIN_TYPE, chain)
    context = FLContext()
    context.set_prop(FLContextKey.APP_ROOT, fl_ctx.get_prop(FLContextKey.APP_ROOT), private=True, sticky=False)
    context.set_prop(FLContextKey.FILTER_DIRECTION, direction, private=True, sticky=False)
    return lambda message: shared_only.process(message, context)


@pytest.mark.parametrize(
    "name", ["note", ReservedHeaderKey.ERROR, ReservedHeaderKey.COOKIE_JAR, AppConstants.CURRENT_ROUND]
)
def test_a_result_leaves_a_site_without_headers_of_ones_own(fl_ctx: FLContext, name: str) -> None:
    gate = directed(fl_ctx, FilterChainType.TASK_RESULT_CHAIN, FilterKey.OUT)
    message = good()
    message.set_return_code(ReturnCode.OK)
    assert gate(message) is message
    message.set_header(name, SECRET)
    assert repr(name) in blocked(gate, message)


@pytest.mark.parametrize(
    ("chain", "direction"),
    [
        (FilterChainType.TASK_DATA_CHAIN, FilterKey.OUT),
        (FilterChainType.TASK_DATA_CHAIN, FilterKey.IN),
        (FilterChainType.TASK_RESULT_CHAIN, FilterKey.IN),
    ],
)
def test_nvflares_own_headers_pass_everywhere_else(fl_ctx: FLContext, chain: str, direction: str) -> None:
    message = good()
    message.set_header(AppConstants.CURRENT_ROUND, 3)
    message.set_header(ReservedHeaderKey.TASK_ID, "task")
    message.set_peer_props({"name": "north"})
    assert directed(fl_ctx, chain, direction)(message) is message


@pytest.mark.parametrize("direction", [FilterKey.IN, FilterKey.OUT])
def test_what_only_comes_down_cannot_go_up(tmp_path: Path, direction: str) -> None:
    write_json(
        tmp_path / "config" / "manifest.json",
        {way: {"shape": [1], "dtype": "float32", "travels": way} for way in ("up", "down", "both")},
    )
    context = FLContext()
    context.set_prop(FLContextKey.APP_ROOT, str(tmp_path), private=True, sticky=False)
    gates = {
        "up": directed(context, FilterChainType.TASK_RESULT_CHAIN, direction),
        "down": directed(context, FilterChainType.TASK_DATA_CHAIN, direction),
    }
    messages = {way: weights_message({key: np.zeros(1, np.float32) for key in (way, "both")}) for way in ("up", "down")}
    for way, gate in gates.items():
        assert gate(messages[way]) is messages[way]
        other = "down" if way == "up" else "up"
        assert repr(other) in blocked(gate, messages[other])


# ---- manifests ------------------------------------------------------------------------------------------


def test_a_site_can_name_the_manifest_it_approved(fl_ctx: FLContext, tmp_path: Path) -> None:
    path = tmp_path / "approved.json"
    write_json(path, {"a": MANIFEST.to_json()["a"]})
    shared_only = SharedOnly(manifest=str(path))
    approved = {"a": make_payload(MANIFEST)["a"]}
    assert shared_only.process(weights_message(approved), fl_ctx)
    with pytest.raises(ContentBlockedException, match="undeclared keys"):
        shared_only.process(good(), fl_ctx)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"a": 3}'])
def test_without_a_readable_manifest_nothing_passes(tmp_path: Path, text: str | None) -> None:
    context = FLContext()
    context.set_prop(FLContextKey.APP_ROOT, str(tmp_path), private=True, sticky=False)
    if text is not None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "manifest.json").write_text(text)
    with pytest.raises(ContentBlockedException):
        SharedOnly().process(good(), context)


def test_without_a_job_folder_nothing_passes() -> None:
    with pytest.raises(ContentBlockedException):
        SharedOnly().process(good(), FLContext())


def test_the_manifest_is_read_once_so_that_a_job_cannot_swap_it(fl_ctx: FLContext, tmp_path: Path) -> None:
    path = tmp_path / "config" / "manifest.json"
    write_json(path, MANIFEST.to_json())
    write_json(path.with_name("plan.json"), make_plan().to_json())
    context = FLContext()
    context.set_prop(FLContextKey.APP_ROOT, str(tmp_path), private=True, sticky=False)
    shared_only = SharedOnly()
    shared_only.process(good(), context)
    write_json(path, {"secret": {"shape": [3], "dtype": "float32"}})
    with pytest.raises(ContentBlockedException):
        shared_only.process(weights_message({"secret": np.zeros(3, np.float32)}), context)


# ---- reports --------------------------------------------------------------------------------------------


def test_a_report_is_about_the_classes_of_the_plan(gate: Gate) -> None:
    matrix = {"confusion_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}
    assert "2 lists of 2 counts" in blocked(gate, with_meta(report={"validation": {"personal": matrix}}))
    assert "2 lists of 2 counts" in blocked(gate, metrics_message({"test": {"personal": matrix}}))


def test_a_site_can_name_the_classes_it_approved(fl_ctx: FLContext) -> None:
    message = metrics_message({"test": {"personal": {"confusion_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}}})
    assert SharedOnly(classes=3).process(message, fl_ctx) is message


def test_without_a_plan_no_report_passes(tmp_path: Path) -> None:
    write_json(tmp_path / "config" / "manifest.json", MANIFEST.to_json())
    context = FLContext()
    context.set_prop(FLContextKey.APP_ROOT, str(tmp_path), private=True, sticky=False)
    assert SharedOnly().process(weights_message(make_payload(MANIFEST)), context)
    with pytest.raises(ContentBlockedException):
        SharedOnly().process(good(), context)


def test_an_update_says_nothing_of_the_test_cases(gate: Gate) -> None:
    assert "undeclared report entry 'test'" in blocked(gate, with_meta(report={"test": {}}))


def test_the_order_of_a_reports_entries_says_nothing(gate: Gate) -> None:
    orders = [REPORT, dict(reversed(REPORT.items()))]
    passed = [gate(weights_message(make_payload(MANIFEST), copy.deepcopy(report))) for report in orders]
    one, other = (list(message["DXO"]["meta"]["report"]) for message in passed)
    assert one == other
    passed = [gate(metrics_message(copy.deepcopy(report))) for report in orders]
    one, other = (list(message["DXO"]["data"]) for message in passed)
    assert one == other


# ---- opening a message ----------------------------------------------------------------------------------


def test_a_message_of_another_kind_cannot_be_opened() -> None:
    from monai_fedlora.errors import PrivacyError

    assert open_message(metrics_message(REPORT), DataKind.METRICS).data == REPORT
    for message in (metrics_message(REPORT), Shareable(), None, make_reply(ReturnCode.ERROR)):
        with pytest.raises(PrivacyError):
            open_message(message, DataKind.WEIGHTS)
