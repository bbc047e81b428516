"""The executor answers every task, and says nothing about what went wrong where the server can read it."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from monai_fedlora.errors import ConfigError, DataError, Diverged, OutOfMemory, PolicyError, WorkerDied
from monai_fedlora.federated import site_work
from monai_fedlora.federated.executor import SiteExecutor
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.flare_context import (
    EVALUATE_TASK,
    READY_TASK,
    TRAIN_TASK,
    open_message,
    readiness_message,
    weights_message,
)
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.site_readiness import Examination
from monai_fedlora.federated.site_work import SiteWork
from monai_fedlora.federated.workers import DiedIdle
from monai_fedlora.files import read_json, write_json
from monai_fedlora.methods import build
from monai_fedlora.scope import Manifest
from tests.federated.conftest import Prepared, same_bits

Payload = dict[str, np.ndarray]


class SameProcess:
    """A worker without a process of its own."""

    stays = alive = True

    def __init__(self, client: Client, setup: Mapping[str, Any]) -> None:
        given = {key: setup[key] for key in ("site", "simulated")}
        places = {key: Path(setup[key]) for key in ("config", "local", "private")}
        self.work = SiteWork(**given, **places, should_stop=lambda: client.abort.triggered)

    def ask(self, question: Mapping[str, Any], tensors: Payload, *, should_stop: Callable[[], bool]) -> Any:
        answer, update = self.work.answer(json.loads(json.dumps(question)), tensors)
        return json.loads(json.dumps(answer)), update

    def end(self) -> None:
        """Nothing has to end."""


class Client:
    """One NVFlare client process, as far as an executor sees it."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self.plan = prepared.plan()
        self.manifest, self.shared = build_shared(self.plan)
        self.app = folder / "job" / "app"
        self.private = folder / "private"
        write_job(self.plan, self.manifest, self.app.parent)
        self.context = FLContext()
        for key, value in {
            FLContextKey.APP_ROOT: str(self.app),
            FLContextKey.WORKSPACE_ROOT: str(folder / "workspace"),
            ReservedKey.IDENTITY_NAME: "site-1",
        }.items():
            self.context.set_prop(key, value, private=True, sticky=False)
        self.executor = SiteExecutor()
        self.executor._new_worker = lambda setup, should_stop: SameProcess(self, setup)  # type: ignore
        self.abort = Signal()

    @property
    def work(self) -> SiteWork:
        """What answers, in this process."""
        worker = self.executor._worker
        assert isinstance(worker, SameProcess)
        return worker.work

    def send(self, message: Shareable, task: str = TRAIN_TASK, round_number: int = 0) -> Shareable:
        message.set_header(AppConstants.CURRENT_ROUND, round_number)
        return self.executor.execute(task, message, self.context, self.abort)

    def train(self, shared: Payload | None = None, round_number: int = 0) -> Shareable:
        return self.send(weights_message(shared or self.shared), TRAIN_TASK, round_number)

    @property
    def errors(self) -> str:
        return (self.private / "errors.log").read_text()


@pytest.fixture
def client(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client(prepared, tmp_path)
    for name, value in {**prepared.environment, "MONAI_FEDLORA_PRIVATE_DIR": str(made.private)}.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def streamed(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What NVFlare's handlers on the root logger have got, as a site's error log that is sent to the server."""
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(logging.Formatter().format(record) for record in caplog.records)


@pytest.mark.slow
def test_a_federations_rounds_are_those_of_the_site(client: Client, prepared: Prepared, tmp_path: Path) -> None:
    site = Site(name="site-1", plan=client.plan, private_root=tmp_path / "other", source=prepared.source)
    gate = SharedOnly()
    expected = site.train_round(0, client.shared)
    answer = gate.process(client.train(), client.context)
    update = open_message(answer, DataKind.WEIGHTS)
    assert same_bits(update.data, expected.tensors)
    assert update.get_meta_prop("report")["cases"] == expected.report.cases
    final = client.send(weights_message(update.data), EVALUATE_TASK)
    report = open_message(gate.process(final, client.context), DataKind.METRICS).data
    assert report["test"] == site.finish(expected.tensors).test
    assert not (client.private / "errors.log").exists()


def test_the_private_folder_is_the_owners_and_inside_the_workspace_by_default(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONAI_FEDLORA_PRIVATE_DIR")
    client.send(weights_message({}))
    folder = tmp_path / "workspace" / "private"
    assert (folder / "errors.log").is_file()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_unknown_task_is_said_to_be_one(client: Client) -> None:
    assert client.send(weights_message(client.shared), "submit_model").get_return_code() == ReturnCode.TASK_UNKNOWN
    assert not client.private.exists()


def without_plan(client: Client) -> None:
    (client.app / "config" / "plan.json").unlink()


def other_manifest(client: Client) -> None:
    entries = json.loads((client.app / "config" / "manifest.json").read_text())
    entries["encoder.blocks.4.attn.q.lora_A.private.weight"] = {"shape": [8, 96], "dtype": "float16"}
    write_json(client.app / "config" / "manifest.json", entries)


def other_method(client: Client) -> None:
    plan = read_json(client.app / "config" / "plan.json")
    write_json(client.app / "config" / "plan.json", {**plan, "method": "local"})


@pytest.mark.parametrize(
    "spoil, code, error",
    [
        (without_plan, "SITE_FAILED", "plan.json does not exist"),
        (other_manifest, "TASK_REFUSED", "PrivacyError: the job's manifest is not what"),
        (other_method, "TASK_REFUSED", "PrivacyError: the job's manifest is not what"),
    ],
    ids=["no plan", "other manifest", "other method"],
)
def test_a_job_that_does_not_fit_is_refused_before_any_training(
    client: Client, streamed: Callable[[], str], spoil: Callable[[Client], None], code: str, error: str
) -> None:
    spoil(client)
    declared = client.app / "config" / "manifest.json"
    entries = Manifest.load(declared).down.entries
    shared = {key: client.shared.get(key, np.zeros(*entry.form[::-1])) for key, entry in entries.items()}
    assert client.train(shared).get_return_code() == code
    assert error in client.errors
    assert {path.name for path in client.private.iterdir()} <= {"errors.log", "site.log"}
    assert str(client.app) not in streamed()


def test_a_worker_that_had_ended_is_replaced_once(client: Client, streamed: Callable[[], str]) -> None:
    asked = list[str]()

    class Idle:
        stays = alive = True

        def ask(self, question: Mapping[str, Any], tensors: Payload, *, should_stop: Callable[[], bool]) -> Any:
            asked.append(next(iter(question)))
            raise DiedIdle("by signal 9")

        def end(self) -> None:
            """Nothing has to end."""

    client.executor._new_worker = lambda setup, should_stop: Idle()  # type: ignore
    assert client.send(readiness_message(), READY_TASK).get_return_code() == "WORKER_DIED"
    assert asked == ["ready", "ready"]
    assert "DiedIdle: by signal 9" in client.errors


def under_a_budget(client: Client) -> None:
    path = client.app / "config" / "plan.json"
    write_json(path, {**read_json(path), "privacy": {"epsilon": 8.0, "delta": 1e-5, "clip": 1.0}})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("/ward/patient-7.nii.gz does not exist or is not a file"), "IMAGES_MISSING"),
        (DataError("/ward/patient-7.nii.gz is truncated"), "DATA_UNUSABLE"),
        (Diverged("the loss of patient-7 is nan"), "DIVERGED"),
        (OutOfMemory("memory ran out with patient-7"), "SITE_OUT_OF_MEMORY"),
        (PermissionError(13, "patient-7.nii.gz"), "NOT_WRITABLE"),
        (PolicyError("least_cases: the site trains on 3 patients"), "POLICY_FORBIDS"),
        (ConfigError("patient-7 has another class"), "SETTINGS_DIFFER"),
    ],
)
def test_under_a_budget_nobody_learns_by_which_failure_a_round_has_no_answer(
    client: Client,
    streamed: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str,
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(site_work, "Site", fail)
    assert client.train().get_return_code() == code
    assert type(error).__name__ in streamed()
    under_a_budget(client)
    before = streamed()
    for task in (TRAIN_TASK, EVALUATE_TASK):
        assert client.send(weights_message(client.shared), task).get_return_code() == "SITE_FAILED"
    said = streamed().removeprefix(before)
    assert "task failed with an error; details are in errors.log" in said
    assert type(error).__name__ not in said
    assert client.errors.count(str(error)) == 3


def test_under_a_budget_it_is_not_told_that_the_process_ended_and_a_foreign_message_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise WorkerDied("by signal 9")

    under_a_budget(client)
    monkeypatch.setattr(client.executor, "_new_worker", killed)
    assert client.train().get_return_code() == "SITE_FAILED"
    assert client.send(readiness_message(), READY_TASK).get_return_code() == "WORKER_DIED"
    assert client.send(weights_message({})).get_return_code() == "TASK_REFUSED"
    without_plan(client)
    assert client.train().get_return_code() == "SITE_FAILED"


@pytest.mark.slow
def test_readiness_is_that_of_the_examination_and_builds_no_site(
    client: Client, prepared: Prepared, tmp_path: Path
) -> None:
    errors = list[Exception]()
    expected = Examination(
        name="site-1", plan=client.plan, manifest=client.manifest, private_root=tmp_path, note=errors.append
    ).readiness()
    reply = client.send(readiness_message(), READY_TASK)
    told = Readiness.parse(open_message(reply, DataKind.STATISTICS).data)
    assert told.codes == () == tuple(errors)
    same = ("cases", "bundle", "versions", "needed_mb")
    assert [getattr(told, name) for name in same] == [getattr(expected, name) for name in same]
    assert client.work._site is None


@pytest.mark.slow
def test_a_site_trains_with_what_was_loaded_to_find_out_whether_it_is_ready(
    client: Client, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Site(name="site-1", plan=client.plan, private_root=tmp_path / "other", source=prepared.source)
    loaded, load = list[str](), build.read_backbone
    monkeypatch.setattr(build, "read_backbone", lambda *given, **more: (loaded.append("once"), load(*given, **more))[1])
    client.send(readiness_message(), READY_TASK)
    assert loaded == ["once"]
    update = open_message(client.train(), DataKind.WEIGHTS)
    assert loaded == ["once"]
    assert same_bits(update.data, expected.train_round(0, client.shared).tensors)
    client.send(weights_message({}), TRAIN_TASK, 1)  # is refused before the site is asked
    client.work._site = None
    client.work.build_site()
    assert loaded == ["once", "once"]


def test_why_a_site_is_not_ready_is_a_code_for_the_log_and_the_server(
    client: Client, tmp_path: Path, streamed: Callable[[], str]
) -> None:
    asks_for_approval(client, tmp_path / "workspace")
    reply = client.send(readiness_message(), READY_TASK)
    assert open_message(reply, DataKind.STATISTICS).data["codes"] == ["NOT_APPROVED"]
    assert "not ready: NOT_APPROVED; details are in errors.log" in streamed()
    assert "require_approval: no approval fits this job of trial" in client.errors
    assert "require_approval" not in streamed()


def undeclared(shared: Payload) -> Shareable:
    return weights_message({**shared, "patient007": np.zeros(3, np.float16)})


@pytest.mark.parametrize(
    "message",
    [
        undeclared,
        lambda shared: weights_message({}),
        lambda shared: Shareable(),
        lambda shared: DXO(DataKind.METRICS, data={"a": 1}).to_shareable(),
        lambda shared: DXO(DataKind.WEIGHT_DIFF, data=shared).to_shareable(),
    ],
    ids=["undeclared", "empty", "no DXO", "metrics", "another kind"],
)
def test_a_message_that_is_not_exact_is_answered_with_an_error(
    client: Client, monkeypatch: pytest.MonkeyPatch, message: Callable[[Payload], Shareable]
) -> None:
    def accepted(*_: Any) -> None:
        raise AssertionError("it was accepted")

    monkeypatch.setattr(client.executor, "_new_worker", accepted)
    for task in (TRAIN_TASK, EVALUATE_TASK):
        assert client.send(message(client.shared), task).get_return_code() == "TASK_REFUSED"
    assert client.errors.count("errors.PrivacyError: ") == 2
    assert "it was accepted" not in client.errors


def test_a_round_without_a_number_is_answered_with_an_error(client: Client) -> None:
    reply = client.executor.execute(TRAIN_TASK, weights_message(client.shared), client.context, client.abort)
    assert reply.get_return_code() == "SITE_FAILED"


def asks_for_more(client: Client, workspace: Path) -> None:
    write_json(workspace / "local" / "policy.json", {"least_cases": 100, "least_steps": 1})


def asks_for_approval(client: Client, workspace: Path) -> None:
    write_json(workspace / "local" / "policy.json", {"least_cases": 1, "least_steps": 1, "require_approval": True})


def misspelt(client: Client, workspace: Path) -> None:
    write_json(workspace / "local" / "policy.json", {"least_case": 1})


@pytest.mark.parametrize(
    ("limit", "code", "said"),
    [
        (asks_for_more, "POLICY_FORBIDS", "PolicyError: least_cases: the site trains on 4 patients"),
        (asks_for_approval, "NOT_APPROVED", "NotApproved: require_approval: no approval fits this job of trial"),
        (misspelt, "POLICY_FORBIDS", "'least_case' is not a limit"),
    ],
)
def test_what_the_sites_policy_does_not_allow_is_answered_with_a_bare_code(
    client: Client,
    tmp_path: Path,
    streamed: Callable[[], str],
    limit: Callable[[Client, Path], None],
    code: str,
    said: str,
) -> None:
    limit(client, tmp_path / "workspace")
    for task in (TRAIN_TASK, EVALUATE_TASK):
        reply = SharedOnly().process(client.send(weights_message(client.shared), task), client.context)
        assert reply.get_return_code() == code
        assert set(reply) == {"__headers__"}
    assert client.errors.count(said) == 2
    assert f"task failed with {said.partition(':')[0] if ':' in said else 'PolicyError'}" in streamed()
    for secret in ("least_case", "require_approval", "policy.json", "4 patients"):
        assert secret not in streamed()
    assert {path.name for path in client.private.iterdir()} <= {"errors.log", "site.log"}


@pytest.mark.slow
def test_a_policy_that_tightens_ends_a_run_at_the_next_task(client: Client, tmp_path: Path) -> None:
    assert client.train().get_return_code() == ReturnCode.OK
    asks_for_more(client, tmp_path / "workspace")
    assert client.train(round_number=1).get_return_code() == "POLICY_FORBIDS"
    (tmp_path / "workspace" / "local" / "policy.json").unlink()
    assert client.train(round_number=1).get_return_code() == ReturnCode.OK


@pytest.mark.slow
def test_a_failed_site_is_built_again_and_goes_on_with_its_state(client: Client, prepared: Prepared) -> None:
    client.train()
    failed = client.work._site
    assert client.train(round_number=-1).get_return_code() != ReturnCode.OK
    assert client.work._site is None
    again = client.train(round_number=1)
    assert again.get_return_code() == ReturnCode.OK
    assert client.work._site not in (None, failed)
    assert client.work._site.store.rounds("answered") == [1]


@pytest.mark.slow
def test_an_aborted_task_ends_training_and_the_next_one_starts_from_the_stored_state(client: Client) -> None:
    client.abort.trigger(True)
    assert client.train().get_return_code() == ReturnCode.TASK_ABORTED
    assert client.work._site is None
    assert not list(client.private.rglob("*.safetensors"))
    assert not (client.private / "errors.log").exists()
    client.abort = Signal()
    assert client.train(round_number=1).get_return_code() == ReturnCode.OK


def test_errors_that_cannot_be_written_down_are_answered_all_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch, streamed: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MONAI_FEDLORA_PRIVATE_DIR", str(tmp_path / "file" / "private"))
    assert client.train().get_return_code() == "SITE_FAILED"
    assert "errors.log in the site's private folder cannot be written (NotADirectoryError)" in streamed()
    assert str(tmp_path) not in streamed()


@pytest.mark.parametrize(
    "simulated, configured, expected", [(True, None, 1), (True, "3", 3), (False, "2", 2), (False, None, 5)]
)
def test_threads_are_the_sites_choice_and_one_in_the_simulator(
    client: Client, monkeypatch: pytest.MonkeyPatch, simulated: bool, configured: str | None, expected: int
) -> None:
    if configured:
        monkeypatch.setenv("MONAI_FEDLORA_THREADS", configured)
    client.context.set_prop(FLContextKey.SIMULATE_MODE, simulated, private=True, sticky=False)
    without_plan(client)
    torch.set_num_threads(5)
    try:
        client.train()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(1)


def test_a_manifest_survives_the_job(client: Client) -> None:
    assert Manifest.load(client.app / "config" / "manifest.json") == client.manifest


ASKED = """
import sys
from monai_fedlora.federated import executor, filters, tensors, wake_up, workers
from monai_fedlora.federated.flare_context import load_form
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
context = FLContext()
context.set_prop(FLContextKey.APP_ROOT, sys.argv[1])
assert load_form(context).classes == 2
print([name for name in ("torch", "monai", "ignite", "peft", "safetensors.torch") if name in sys.modules])
"""


@pytest.mark.slow
def test_who_only_asks_imports_nothing_that_computes(client: Client) -> None:
    said = subprocess.run([sys.executable, "-c", ASKED, str(client.app)], check=True, capture_output=True, text=True)
    assert said.stdout == "[]\n"
