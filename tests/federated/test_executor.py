"""The executor answers every task, and says nothing about what went wrong where the server can read it."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from monai_fedlora.federated.executor import SiteExecutor
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.flare_context import EVALUATE_TASK, REFUSED, TRAIN_TASK, open_message, weights_message
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.logs import kept_in
from monai_fedlora.files import read_json, write_json
from monai_fedlora.scope import Manifest, Role
from tests.federated.conftest import Prepared, same_bits

Payload = dict[str, np.ndarray]


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
        self.abort = Signal()

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
    "spoil, error",
    [
        (without_plan, "plan.json does not exist"),
        (other_manifest, "PrivacyError: the job's manifest is not what"),
        (other_method, "PrivacyError: the job's manifest is not what"),
    ],
    ids=["no plan", "other manifest", "other method"],
)
def test_a_job_that_does_not_fit_is_refused_before_any_training(
    client: Client, streamed: Callable[[], str], spoil: Callable[[Client], None], error: str
) -> None:
    spoil(client)
    assert client.train().get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert error in client.errors
    assert {path.name for path in client.private.iterdir()} <= {"errors.log", "site.log"}
    assert str(client.app) not in streamed()


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
    class Idle:
        """A site that only checks what it is sent."""

        manifest = client.manifest

        def train_round(self, round_number: int, shared: Any) -> None:
            self.manifest.check(shared)
            raise AssertionError("it was accepted")

        def finish(self, shared: Any, *, images: str) -> None:
            self.train_round(0, shared)

    monkeypatch.setattr(client.executor, "_build_site", lambda context: Idle())
    for task in (TRAIN_TASK, EVALUATE_TASK):
        assert client.send(message(client.shared), task).get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert client.errors.count("errors.PrivacyError: ") == 2
    assert "accepted" not in client.errors


def test_a_round_without_a_number_is_answered_with_an_error(client: Client) -> None:
    reply = client.executor.execute(TRAIN_TASK, weights_message(client.shared), client.context, client.abort)
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def asks_for_more(client: Client, workspace: Path) -> None:
    write_json(workspace / "local" / "policy.json", {"least_cases": 100, "least_steps": 1})


def asks_for_approval(client: Client, workspace: Path) -> None:
    write_json(workspace / "local" / "policy.json", {"least_cases": 1, "least_steps": 1, "require_approval": True})


def misspelt(client: Client, workspace: Path) -> None:
    write_json(workspace / "local" / "policy.json", {"least_case": 1})


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (asks_for_more, "PolicyError: least_cases: the site trains on 4 patients"),
        (asks_for_approval, "PolicyError: require_approval: no approval fits this job of trial"),
        (misspelt, "'least_case' is not a limit"),
    ],
)
def test_what_the_sites_policy_does_not_allow_is_answered_with_a_bare_code(
    client: Client,
    tmp_path: Path,
    streamed: Callable[[], str],
    limit: Callable[[Client, Path], None],
    said: str,
) -> None:
    limit(client, tmp_path / "workspace")
    for task in (TRAIN_TASK, EVALUATE_TASK):
        reply = SharedOnly().process(client.send(weights_message(client.shared), task), client.context)
        assert reply.get_return_code() == REFUSED
        assert set(reply) == {"__headers__"}
    assert client.errors.count(said) == 2
    assert "task failed with PolicyError" in streamed()
    for secret in ("least_case", "require_approval", "policy.json", "4 patients"):
        assert secret not in streamed()
    assert {path.name for path in client.private.iterdir()} <= {"errors.log", "site.log"}


@pytest.mark.slow
def test_a_policy_that_tightens_ends_a_run_at_the_next_task(client: Client, tmp_path: Path) -> None:
    assert client.train().get_return_code() == ReturnCode.OK
    asks_for_more(client, tmp_path / "workspace")
    assert client.train(round_number=1).get_return_code() == REFUSED
    (tmp_path / "workspace" / "local" / "policy.json").unlink()
    assert client.train(round_number=1).get_return_code() == ReturnCode.OK


def unreadable_image(client: Client, prepared: Prepared, folder: Path) -> str:
    """Replace a patient's image by text; return what must not be in NVFlare's log."""
    listed = read_json(prepared.data / "site-1" / "datalist.json")
    broken = folder / "secretfolder" / "broken.nii.gz"
    broken.parent.mkdir()
    broken.write_text("not an image")
    listed["training"][0] |= {"subject": "secretfolder", "ed": str(broken)}
    write_json(folder / "data" / "site-1" / "datalist.json", listed)
    return str(folder / "data")


def test_what_is_wrong_with_a_file_stays_in_the_private_folder(
    client: Client, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: Callable[[], str]
) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_DATA", unreadable_image(client, prepared, tmp_path))
    reply = client.train()
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert set(reply) == {"__headers__"}
    assert "secretfolder" in client.errors
    assert "task failed with" in streamed()
    for secret in ("secretfolder", str(tmp_path), str(prepared.data)):
        assert secret not in streamed()


def test_who_was_in_a_diverging_batch_stays_in_the_private_folder(
    client: Client, monkeypatch: pytest.MonkeyPatch, streamed: Callable[[], str]
) -> None:
    client.train()
    site = client.executor._site
    assert site is not None
    subjects = [case["subject"] for case in site._bundled("train::data")]

    def diverge(engine: Any) -> None:
        with torch.no_grad():
            for key in site.scope.keys(Role.PRIVATE):
                site.network.get_parameter(key).fill_(float("nan"))

    site._trainer.add_event_handler(Events.ITERATION_STARTED, diverge)
    reply = client.train(round_number=1)
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    for log in (client.errors, (client.private / "site.log").read_text()):
        assert any(subject in log for subject in subjects)
    for name in ("errors.log", "site.log"):
        assert stat.S_IMODE((client.private / name).stat().st_mode) == 0o600
    assert "task failed with FedLoraError" in streamed()
    assert not any(subject in streamed() for subject in subjects)
    assert str(client.private) not in streamed()


@pytest.mark.slow
def test_a_failed_site_is_built_again_and_goes_on_with_its_state(client: Client, prepared: Prepared) -> None:
    client.train()
    failed = client.executor._site
    assert client.train({**client.shared, "x": np.zeros(1, np.float16)}, 1).get_return_code() != ReturnCode.OK
    assert client.executor._site is None
    again = client.train(round_number=1)
    assert again.get_return_code() == ReturnCode.OK
    assert client.executor._site not in (None, failed)
    assert client.executor._site.store.rounds() == [0, 1]


@pytest.mark.slow
def test_an_aborted_task_ends_training_and_the_next_one_starts_from_the_stored_state(client: Client) -> None:
    client.abort.trigger(True)
    assert client.train().get_return_code() == ReturnCode.TASK_ABORTED
    assert client.executor._site is None
    assert not list(client.private.rglob("*.safetensors"))
    assert not (client.private / "errors.log").exists()
    client.abort = Signal()
    assert client.train(round_number=1).get_return_code() == ReturnCode.OK


def test_errors_that_cannot_be_written_down_are_answered_all_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch, streamed: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MONAI_FEDLORA_PRIVATE_DIR", str(tmp_path / "file" / "private"))
    assert client.train().get_return_code() == ReturnCode.EXECUTION_EXCEPTION
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


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    logger = logging.getLogger("some_library")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


def test_logs_of_libraries_are_kept_and_those_of_the_federation_go_on(
    tmp_path: Path, library: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "site.log"
    with kept_in(path):
        assert not path.exists()
        library.error("patient007")
        logging.getLogger("monai_fedlora.data.site").info("patient008")
        logging.getLogger("nvflare.private").info("heartbeat")
        logging.getLogger("monai_fedlora.federated.filters.SharedOnly").info("blocked")
    library.error("afterwards")
    assert caplog.messages == ["heartbeat", "blocked", "afterwards"]
    kept = path.read_text()
    assert "ERROR some_library: patient007" in kept
    assert "patient008" in kept
    assert not any(word in kept for word in ("heartbeat", "blocked", "afterwards"))


def test_logging_is_as_before_after_an_error(tmp_path: Path, library: logging.Logger) -> None:
    root = logging.getLogger()
    before = [(handler, list(handler.filters)) for handler in root.handlers]
    with pytest.raises(RuntimeError), kept_in(tmp_path / "site.log"):
        raise RuntimeError
    assert [(handler, list(handler.filters)) for handler in root.handlers] == before


def test_a_manifest_survives_the_job(client: Client) -> None:
    assert Manifest.load(client.app / "config" / "manifest.json") == client.manifest
