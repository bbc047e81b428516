"""The server's components: what counts, what is refused and written down, what is kept on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException, FilterChainType, FilterContextKey
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode, ServerCommandKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator
from nvflare.fuel.sec.audit import AuditService

from monai_fedlora.data.origin import KINDS
from monai_fedlora.errors import FedLoraError, PrivacyError, WeightsError
from monai_fedlora.federated import start
from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.flare_context import RECORD_ID, metrics_message, open_message, weights_message
from monai_fedlora.federated.initial import build_shared, save_shared
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.server import FinalEvaluation, FlareRecord, SharedAggregator, SharedPersistor
from monai_fedlora.federated.server_optimizer import FedAdam
from monai_fedlora.federated.tensors import most_bytes
from monai_fedlora.files import load_tensors, read_json, write_json
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import MetricsForm
from tests.federated.conftest import same_bits
from tests.helpers import make_manifest, make_payload, make_plan, scored

Payload = dict[str, np.ndarray]
SITES = ("east", "north", "south")


def report(round_number: int, cases: int = 10, accuracy: float | None = 0.5, **more: Any) -> dict[str, Any]:
    validation = {"personal": {"n": 2000} if accuracy is None else scored(accuracy)}
    return {"round": round_number, "cases": cases, "validation": validation, **more}


class Server:
    """A run's components on an engine that only holds them; rounds go as ScatterAndGather drives them."""

    def __init__(self, folder: Path, plan: Plan, manifest: Manifest) -> None:
        self.plan, self.manifest, self.folder = plan, manifest, folder / "run"
        self.config = folder / "app" / "config"
        write_json(self.config / "plan.json", plan.to_json())
        write_json(self.config / "manifest.json", manifest.to_json())
        self.record, self.aggregator, self.persistor = FlareRecord(), SharedAggregator(), SharedPersistor()
        self.final = FinalEvaluation()
        self.generator = FullModelShareableGenerator()
        core = SimpleNamespace(get_fobs_context=dict)
        for name in ("add_incoming_filter", "add_outgoing_reply_filter", "add_outgoing_request_filter"):
            setattr(core, name, lambda *_: None)
        self.fobs_context: dict[str, Any] = {}
        cell = SimpleNamespace(byte_receiver=SimpleNamespace(register_callback=lambda *_: None))
        agent = SimpleNamespace(execute_command=None, cell=cell)
        engine = SimpleNamespace(
            get_component={RECORD_ID: self.record}.get,
            get_workspace=lambda: SimpleNamespace(get_run_dir=lambda job: str(self.folder)),
            get_cell=lambda: SimpleNamespace(core_cell=core, update_fobs_context=self.fobs_context.update),
            server=SimpleNamespace(command_agent=agent, client_manager=SimpleNamespace(clients={})),
        )
        self.context = FLContext()
        self.set(FLContextKey.APP_ROOT, str(self.config.parent))
        self.set(ReservedKey.ENGINE, engine)
        self.set(ReservedKey.RUN_NUM, "job")

    def set(self, key: str, value: Any) -> None:
        self.context.set_prop(key, value, private=True, sticky=False)

    def fire(self, event: str) -> None:
        for component in (self.record, self.aggregator):
            component.handle_event(event, self.context)

    def start(self) -> Payload:
        self.fire(EventType.START_RUN)
        self.model = self.persistor.load(self.context)
        return self.model["weights"]

    def open(self, number: int) -> None:
        self.set(AppConstants.GLOBAL_MODEL, self.model)
        self.set(AppConstants.CURRENT_ROUND, number)
        self.fire(AppEventType.ROUND_STARTED)

    def answer(self, site: str, message: Shareable, *, claimed: str | None = None) -> bool:
        message.set_header(ServerCommandKey.FL_CLIENT, Client(site, "token"))
        message.set_peer_props({ReservedKey.IDENTITY_NAME: claimed or site})
        return self.aggregator.accept(message, self.context)

    def submit(self, site: str, message: Shareable) -> Shareable:
        """Pass a message through the server's filter as NVFlare does; return what is left of it."""
        context = FLContext()
        for key in (FLContextKey.APP_ROOT, ReservedKey.ENGINE, ReservedKey.RUN_NUM, AppConstants.CURRENT_ROUND):
            context.set_prop(key, self.context.get_prop(key), private=True, sticky=False)
        message.set_header(ServerCommandKey.FL_CLIENT, Client(site, "token"))
        context.set_prop(FLContextKey.TASK_RESULT, message, private=True, sticky=False)
        self.record.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, context)
        gate = SharedOnly()
        gate.set_prop(FilterContextKey.CHAIN_TYPE, FilterChainType.TASK_RESULT_CHAIN)
        try:
            message = gate.process(message, context)
        except ContentBlockedException:
            message = make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR)
        context.set_prop(FLContextKey.TASK_RESULT, message, private=True, sticky=False)
        self.record.handle_event(EventType.AFTER_TASK_RESULT_FILTER, context)
        return message

    def close(self) -> Payload:
        self.model = self.generator.shareable_to_learnable(self.aggregator.aggregate(self.context), self.context)
        self.set(AppConstants.GLOBAL_MODEL, self.model)
        self.persistor.save(self.model, self.context)
        self.fire(AppEventType.ROUND_DONE)
        self.aggregator.reset(self.context)
        return self.model["weights"]

    def round(self, number: int, answers: dict[str, tuple[Payload, dict[str, Any]]]) -> Payload:
        self.open(number)
        for site, (payload, said) in answers.items():
            self.answer(site, weights_message(payload, said))
        return self.close()

    @property
    def results(self) -> dict[str, Any]:
        self.record.record.flush()
        return read_json(self.folder / "results.json")


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A manifest of two tensors that fits every plan."""
    made = make_manifest()
    monkeypatch.setattr(start, "build_manifest", lambda plan: made)
    return made


@pytest.fixture
def server(tmp_path: Path, manifest: Manifest) -> Server:
    """A run that starts from stored tensors, with generous limits."""
    plan = make_plan(sites=SITES, max_update_rms=100.0, declared_cases={"east": 20})
    made = Server(tmp_path, plan, manifest)
    save_shared(made.config / "initial_shared.safetensors", make_payload(manifest, 99), plan=plan, round_number=4)
    return made


@pytest.fixture
def audit(tmp_path: Path) -> Any:
    path = tmp_path / "audit.log"
    AuditService.initialize(str(path))
    yield path.read_text
    AuditService.close()


def test_a_round_averages_what_was_accepted_and_writes_it_down(server: Server, manifest: Manifest) -> None:
    assert same_bits(server.start(), make_payload(manifest, 99))
    payloads = {site: make_payload(manifest, seed) for seed, site in enumerate(SITES)}
    new = server.round(0, {site: (payloads[site], report(0, 10 + i)) for i, site in enumerate(SITES)})
    for key in manifest.entries:
        expected = sum(n * payloads[site][key].astype(np.float64) for n, site in zip((10, 11, 12), SITES, strict=True))
        np.testing.assert_allclose(new[key], expected / 33, rtol=1e-6)
    results = server.results
    assert results["refused"] == []
    assert results["rounds"][0]["score"] == 0.5
    assert {site: said["cases"] for site, said in results["rounds"][0]["sites"].items()} == dict(
        zip(SITES, (10, 11, 12), strict=True)
    )
    stored, metadata = load_tensors(server.folder / "shared.safetensors")
    assert same_bits({key: value.numpy() for key, value in stored.items()}, new)
    assert metadata["round"] == "0"
    assert metadata["fingerprint"] == server.plan.fingerprint


def bad_answers(good: Payload) -> dict[str, tuple[Callable[[], Shareable], str]]:
    key = sorted(good)[0]

    def payload(**changes: Any) -> Callable[[], Shareable]:
        return lambda: weights_message({**good, **changes}, report(0))

    return {
        "extra": (payload(patient007=good[key]), "undeclared keys"),
        "NaN": (payload(**{key: np.full_like(good[key], np.nan)}), "NaN or infinity"),
        "shape": (payload(**{key: good[key].T}), "declared as"),
        "dtype": (payload(**{key: good[key].astype(np.float64)}), "declared as"),
        "missing": (lambda: weights_message({key: good[key]}, report(0)), "missing keys"),
        "huge": (payload(**{key: good[key] + 1e4}), "changes parameters by"),
        "cases": (lambda: weights_message(good, report(0, cases=21)), "claims 21 training cases, east declared 20"),
        "no cases": (lambda: weights_message(good, report(0, cases=0)), "claims 0"),
        "round": (lambda: weights_message(good, report(1)), "for round 1, the server is in round 0"),
        "text": (lambda: weights_message(good, report(0, note="patient007")), "undeclared report entry"),
        "no report": (lambda: weights_message(good), "report is a NoneType"),
        "kind": (lambda: DXO(DataKind.WEIGHT_DIFF, data=good).to_shareable(), "kind 'WEIGHT_DIFF'"),
        "metrics": (lambda: metrics_message(report(0)), "kind 'METRICS', expected 'WEIGHTS'"),
        "nothing": (Shareable, "not a DXO"),
    }


@pytest.mark.parametrize("kind", sorted(bad_answers(make_payload(make_manifest()))))
def test_a_refused_answer_is_written_down_and_the_others_count(
    server: Server, manifest: Manifest, audit: Callable[[], str], kind: str
) -> None:
    message, reason = bad_answers(make_payload(manifest, 1))[kind]
    good = make_payload(manifest, 2)
    server.start()
    server.open(0)
    assert not server.answer("east", message())
    assert server.answer("north", weights_message(good, report(0)))
    assert server.answer("south", weights_message(good, report(0)))
    new = server.close()
    assert all(np.allclose(new[key], good[key]) for key in good)
    (refusal,) = server.results["refused"]
    assert (refusal["round"], refusal["site"]) == (0, "east")
    assert reason in refusal["reason"]
    assert f"round 0: east refused: {refusal['reason']}" in audit()
    sites = server.results["rounds"][0]["sites"]
    assert {site for site in sites if "cases" in sites[site]} == {"north", "south"}


def test_an_answer_that_breaks_the_check_itself_is_refused_too(
    server: Server, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    server.open(0)

    def fail(*_: Any) -> None:
        raise ValueError("with the values 0.1 0.2")

    monkeypatch.setattr(server.aggregator._opened, "accept", fail)
    assert not server.answer("east", weights_message(make_payload(manifest), report(0)))
    assert server.results["refused"][0]["reason"] == "the answer cannot be read (ValueError)"


def test_a_site_cannot_answer_in_anothers_name(server: Server, manifest: Manifest) -> None:
    server.start()
    server.open(0)
    assert server.answer("south", weights_message(make_payload(manifest, 1), report(0)), claimed="east")
    assert server.answer("east", weights_message(make_payload(manifest, 2), report(0)))
    assert not server.answer("stranger", weights_message(make_payload(manifest, 3), report(0)), claimed="north")
    assert set(server.aggregator._opened.updates) == {"south", "east"}
    said = {"code": "ANSWER_REFUSED", "reason": "'stranger' is not a member of this federation"}
    assert server.results["refused"] == [{"round": 0, "site": "stranger", **said}]


def test_a_second_answer_is_refused_and_the_first_counts(server: Server, manifest: Manifest) -> None:
    server.start()
    server.open(0)
    first = make_payload(manifest, 1)
    assert server.answer("east", weights_message(first, report(0)))
    assert not server.answer("east", weights_message(make_payload(manifest, 2), report(0)))
    assert all(np.allclose(server.close()[key], first[key]) for key in first)


def test_a_site_whose_answer_did_not_get_through_is_noted_with_what_is_known(
    server: Server, manifest: Manifest
) -> None:
    payload = make_payload(manifest, 1)
    server.start()
    for number, (message, reason) in enumerate(
        [
            (
                weights_message({**payload, "x": payload["a"]}, report(0)),
                "blocked by the server's filter: undeclared keys",
            ),
            (make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR), "blocked by the site's own filter"),
            (make_reply(ReturnCode.EXECUTION_EXCEPTION), "the site answered 'EXECUTION_EXCEPTION'"),
            (make_reply("patient007 " * 99), "blocked by the server's filter: the message has a return code"),
        ]
    ):
        server.open(number)
        left = server.submit("north", message)
        assert left.get_return_code() != ReturnCode.OK
        server.close()
        reasons = {entry["site"]: entry["reason"] for entry in server.results["refused"] if entry["round"] == number}
        assert reasons.keys() == set(SITES)
        assert reasons["north"].startswith(reason)
        assert reasons["east"] == reasons["south"] == "no answer"


def test_without_any_update_the_tensors_stay(server: Server, manifest: Manifest) -> None:
    start = server.start()
    assert same_bits(server.round(0, {}), start)
    assert server.results["rounds"][0]["score"] is None
    assert not (server.folder / "best_shared.safetensors").exists()
    new = make_payload(manifest, 1)
    assert all(np.allclose(server.round(1, {"east": (new, report(1))})[key], new[key]) for key in new)


def test_cases_cannot_grow_between_rounds(server: Server, manifest: Manifest) -> None:
    server.start()
    payload = make_payload(manifest, 1)
    server.round(0, {"north": (payload, report(0, cases=5))})
    server.open(1)
    assert not server.answer("north", weights_message(payload, report(1, cases=50)))
    assert server.answer("north", weights_message(payload, report(1, cases=5)))


def test_best_is_the_model_that_scored_best_and_only_improves(server: Server, manifest: Manifest) -> None:
    sent = {0: server.start()}
    best = server.folder / "best_shared.safetensors"
    kept = []
    for number, accuracy in enumerate((0.5, 0.75, 0.75, 0.25, None, 1.0)):
        answer = make_payload(manifest, number), report(number, accuracy=accuracy)
        sent[number + 1] = server.round(number, {"east": answer})
        tensors, metadata = load_tensors(best)
        kept.append((int(metadata["round"]), json.loads(metadata["score"])))
        # what scored in a round is what was sent at its start, the average of the round before
        assert same_bits({key: value.numpy() for key, value in tensors.items()}, sent[kept[-1][0] + 1])
    assert kept == [(-1, 0.5), (0, 0.75), (0, 0.75), (0, 0.75), (0, 0.75), (4, 1.0)]


def test_a_refused_site_has_no_vote_on_the_best(server: Server, manifest: Manifest) -> None:
    server.start()
    boast = {key: np.full_like(value, np.nan) for key, value in make_payload(manifest).items()}
    payload = make_payload(manifest, 1)
    server.round(0, {"east": (boast, report(0, accuracy=1.0)), "north": (payload, report(0, accuracy=0.25))})
    assert server.results["rounds"][0]["score"] == 0.25


def test_a_run_starts_from_stored_tensors_in_any_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, manifest = make_plan(), make_manifest("float16")
    monkeypatch.setattr(start, "build_manifest", lambda plan: manifest)
    server = Server(tmp_path, plan, manifest)
    stored = make_payload(make_manifest("float32"), 3)
    save_shared(server.config / "initial_shared.safetensors", stored, plan=plan, round_number=4)
    assert same_bits(server.start(), {key: value.astype(np.float16) for key, value in stored.items()})


def test_stored_tensors_that_do_not_fit_are_named(server: Server) -> None:
    path = server.config / "initial_shared.safetensors"
    save_shared(path, {"a": np.zeros(3, np.float32)}, plan=server.plan, round_number=4)
    with pytest.raises(WeightsError, match=r"initial_shared\.safetensors does not fit this run"):
        server.start()


def test_without_stored_tensors_a_run_starts_from_its_seed(tmp_path: Path) -> None:
    plan = make_plan(method="fedit", seed=3)
    manifest, payload = build_shared(plan)
    assert same_bits(Server(tmp_path, plan, manifest).start(), payload)


def test_a_manifest_of_another_plan_ends_the_run(tmp_path: Path) -> None:
    manifest, _ = build_shared(make_plan(method="fedit", method_args={"rank": 4}))
    with pytest.raises(PrivacyError, match="manifest does not fit its plan"):
        Server(tmp_path, make_plan(method="fedit"), manifest).start()


def test_an_aggregator_needs_a_run(manifest: Manifest) -> None:
    with pytest.raises(FedLoraError, match="before the run started"):
        SharedAggregator().aggregate(FLContext())


def test_nothing_shared_is_a_round_too(tmp_path: Path) -> None:
    plan = make_plan(method="local")
    manifest, payload = build_shared(plan)
    server = Server(tmp_path, plan, manifest)
    assert server.start() == payload == {}
    assert server.round(0, {"north": ({}, report(0)), "south": ({}, report(0))}) == {}
    assert server.results["refused"] == []
    assert server.results["rounds"][0]["score"] == 0.5


def test_the_final_evaluation_sends_the_last_tensors_and_notes_the_answers(
    server: Server, manifest: Manifest, audit: Callable[[], str]
) -> None:
    server.start()
    last = server.round(0, {"east": (make_payload(manifest, 1), report(0))})
    message = server.final.create_task_data("validate", server.context)
    assert same_bits(open_message(message, DataKind.WEIGHTS).data, last)
    assert open_message(message, DataKind.WEIGHTS).meta["report"] == {"images": KINDS.index("unknown")}
    assert SharedOnly().process(message, server.context) is message
    good = {"round": 1, "cases": 10, "test": {"personal": {"auroc": 0.75}}}
    answers = {
        "east": metrics_message(good),
        "north": metrics_message({"round": 1, "path": "/data/patient007"}),
        "south": server.submit("south", make_reply(ReturnCode.EXECUTION_EXCEPTION)),
        "west": weights_message(last),
    }
    before = len(server.results["refused"])
    for site, answer in answers.items():
        assert server.final.process_client_response(Client(site, "token"), "validate", answer, server.context)
    assert server.results["final"] == {"east": good}
    reasons = {entry["site"]: entry["reason"] for entry in server.results["refused"][before:]}
    assert set(reasons) == {"north", "south", "west"}
    assert "undeclared report entry 'path'" in reasons["north"]
    assert "EXECUTION_EXCEPTION" in reasons["south"]
    assert "/data/patient007" not in audit()
    assert server.results["status"] == "running"
    assert server.final.final_process(server.context)
    assert server.results["status"] == "incomplete"
    assert any("north" in line for line in server.results["lacks"])


# ---- limits on one site's part --------------------------------------------------------------------------


def changed(payload: Payload, times: float, seed: int) -> Payload:
    noise = make_payload(make_manifest(), seed)
    return {key: np.array(value + np.float32(times) * noise[key], np.float32) for key, value in payload.items()}


def test_a_change_far_longer_than_the_others_is_clipped_and_written_down(server: Server) -> None:
    sent = server.start()
    answers = {site: (changed(sent, 0.01, seed), report(0)) for seed, site in enumerate(SITES)}
    answers["south"] = (changed(sent, 16.0, 2), report(0))
    new = server.round(0, answers)
    limits = server.results["rounds"][0]["limits"]
    assert set(limits["clipped"]) == {"south"}
    assert limits["longest"] == pytest.approx(5 * limits["usual"], rel=1e-5)
    moved = np.sqrt(sum(float(((new[key] - sent[key]) ** 2).sum()) for key in sent))
    assert moved < limits["usual"] * 3
    assert server.results["refused"] == []


@pytest.mark.parametrize("optimizer", [None, FedAdam()])
def test_a_resumed_run_goes_on_with_the_lengths_and_moments_of_the_one_that_ended(
    tmp_path: Path, manifest: Manifest, optimizer: FedAdam | None
) -> None:
    """Two sites, of whose last round's changes the usual length follows: the same bits as without the end."""
    plan = make_plan(sites=SITES[:2], max_update_rms=100.0, server_optimizer=optimizer)
    whole, half = (Server(tmp_path / name, plan, manifest) for name in ("whole", "half"))
    for each in (whole, half):
        save_shared(each.config / "initial_shared.safetensors", make_payload(manifest, 9), plan=plan, round_number=-1)

    def play(server: Server, sent: Payload, numbers: range) -> Payload:
        for number in numbers:
            times = 16.0 if number == 2 else 0.01
            answers = {"east": (changed(sent, 0.01, number), report(number))}
            answers["north"] = (changed(sent, times, 9 + number), report(number))
            sent = server.round(number, answers)
        return sent

    expected = play(whole, whole.start(), range(3))
    play(half, half.start(), range(2))
    resumed = Server(tmp_path / "resumed", dataclasses.replace(plan, start_round=2), manifest)
    stored = half.folder / "shared.safetensors"
    (resumed.config / "initial_shared.safetensors").write_bytes(stored.read_bytes())
    assert same_bits(play(resumed, resumed.start(), range(2, 3)), expected)
    assert resumed.results["rounds"][0]["limits"] == whole.results["rounds"][2]["limits"]
    assert set(whole.results["rounds"][2]["limits"]["clipped"]) == {"north"}
    ends = [load_tensors(each.folder / "shared.safetensors")[1]["update_lengths"] for each in (whole, resumed)]
    assert ends[0] == ends[1]
    assert "update_lengths" in load_tensors(resumed.folder / "best_shared.safetensors")[1]


def test_the_server_opens_no_message_that_is_longer_than_needed(server: Server) -> None:
    server.start()
    (most,) = server.fobs_context.values()
    assert most == most_bytes(server.manifest, form=MetricsForm(classes=2))
    assert server.manifest.up.nbytes < most < 25_000


def test_a_sites_code_is_put_into_words_and_no_other_text_passes(server: Server) -> None:
    server.start()
    server.open(0)
    assert server.submit("north", make_reply("DISK_FULL")).get_return_code() == "DISK_FULL"
    blocked = server.submit("south", make_reply("patient007 is missing"))
    assert blocked.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    server.close()
    codes = {entry["site"]: entry["code"] for entry in server.results["refused"]}
    assert codes == {"north": "DISK_FULL", "south": "BLOCKED_AT_SERVER", "east": "NO_ANSWER"}
    reasons = {entry["site"]: entry["reason"] for entry in server.results["refused"]}
    assert "the site's disk is full" in reasons["north"]
    assert "patient007" not in json.dumps(server.results)
