"""A run over several jobs, on a server that is made up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.api.written_job import write_job
from monai_fedlora.errors import ConfigError, FedLoraError, WeightsError
from monai_fedlora.federated import continued
from monai_fedlora.federated import supervisor as module
from monai_fedlora.federated.continued import continued_job, find_stored, stored_plan, stored_round
from monai_fedlora.federated.initial import build_shared, save_shared
from monai_fedlora.federated.participation import NotReady
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.reasons import Reason
from monai_fedlora.federated.run_record import LAST_NAME, RESULTS_NAME, RunRecord
from monai_fedlora.federated.server_link import UNKNOWN, NotRunning, Seen, SiteSeen, Unreachable
from monai_fedlora.federated.supervision import FILE_NAME, Supervision
from monai_fedlora.federated.supervisor import Limits, Supervisor
from monai_fedlora.files import read_json, save_tensors, write_json
from monai_fedlora.scope import Manifest

SITES = ("a", "b", "c")


class Server:
    """Runs every job for as many rounds as it is told, in no time.

    Args:
        folder: for what jobs leave.
        lasts: rounds that each job in turn comes to its end with; the last also evaluates.
        absent: the site that is not at work when a job ends too early.
    """

    begins_with: tuple[Manifest, dict[str, np.ndarray]]

    def __init__(self, folder: Path, *, lasts: list[int], absent: str | None = None) -> None:
        self.folder, self.lasts, self.absent = folder, lasts, absent
        self.tokens: dict[str, str] = {}
        self.jobs: dict[str, Plan] = {}
        self.sent: dict[str, list[str]] = {}
        self.followers: dict[str, str] = {}
        self.aborted: list[str] = []
        self.looks: dict[str, int] = {}
        self.failures = 0
        self.unready: list[dict[str, list[str]]] = []
        self.refuses = False

    def submit(self, job: Path, *, token: str) -> str:
        if token not in self.tokens:
            number = f"job-{len(self.jobs)}"
            self.tokens[token], self.jobs[number] = number, Plan.load(job / "app" / "config" / "plan.json")
            self.sent[number] = json.loads((job / "meta.json").read_text())["deploy_map"]["app"][1:]
            components = read_json(job / "app" / "config" / "config_fed_server.json")["components"]
            self.followers[number] = components[-1]["args"]["key_sha256"]
            self._compute(number, self.lasts.pop(0))
        return self.tokens[token]

    def _compute(self, number: str, rounds: int) -> None:
        plan, folder = self.jobs[number], self.folder / number
        folder.mkdir(parents=True)
        manifest, shared = self.begins_with
        record = RunRecord(folder=folder, plan=plan, manifest=manifest)
        for count in range(plan.start_round, plan.start_round + rounds):
            record.repeat(count, "no answer counts")
            record.begin_round(count)
            record.value["rounds"][-1]["sites"] = {site: {"round": count} for site in self.sent[number]}
            save_shared(folder / LAST_NAME, shared, plan=plan, round_number=count)
        if self.refuses:
            record.value["refused"].append({"round": record.value["rounds"][-1]["round"] + (plan.rounds > rounds)})
        for site, codes in self.unready.pop(0).items() if self.unready else ():
            record.readiness(site, Reason.of_all(codes) if codes else None)
            if codes:
                record.value |= {"status": "interrupted", "interrupted_by": "not_ready"}
        if plan.rounds == rounds:
            record.value["final"] = {site: {} for site in self.sent[number]}
            record.finish()
        write_json(folder / RESULTS_NAME, record.value)

    def look(self, job_id: str, *, key: str) -> Seen:
        assert hashlib.sha256(key.encode()).hexdigest() == self.followers[job_id]
        if self.failures:
            self.failures -= 1
            raise Unreachable("the server does not answer")
        self.looks[job_id] = looks = self.looks.get(job_id, 0) + 1
        results = json.loads((self.folder / job_id / RESULTS_NAME).read_text())
        sites = {site: SiteSeen(at_work=site != self.absent) for site in SITES}
        if results["status"] in ("running", "interrupted") and looks > 1:
            return Seen(status="FINISHED:EXECUTION_EXCEPTION", server="now", running=False, sites=sites)
        stored = 1 if (self.folder / job_id / LAST_NAME).is_file() else None
        return Seen(status="RUNNING", server="now", running=True, results=results, stored=stored, sites=sites)

    def fetch(self, job_id: str, folder: Path, *, key: str = "") -> None:
        shutil.copy(self.folder / job_id / LAST_NAME, folder)

    def download(self, job_id: str, folder: Path) -> Mapping[str, Any]:
        if (self.folder / job_id / LAST_NAME).is_file():
            self.fetch(job_id, folder)
        results: Mapping[str, Any] = json.loads((self.folder / job_id / RESULTS_NAME).read_text())
        return results

    def abort(self, job_id: str) -> None:
        self.aborted.append(job_id)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    yield


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    written = write_job("dual_lora", output=tmp_path_factory.mktemp("jobs") / "hearts", sites=SITES, rounds=5)
    Server.begins_with = build_shared(written.plan)
    with pytest.MonkeyPatch.context() as patch:  # which takes most of a second otherwise, and is the same for all
        patch.setattr(continued, "build_manifest", lambda plan: Server.begins_with[0])
        yield written.folder


def supervise(
    job: Path, server: Server, folder: Path, *, said: list[str] | None = None, **limits: Any
) -> tuple[Mapping[str, Any], list[str]]:
    said = [] if said is None else said
    link: Any = server
    found = Supervisor(job=job, folder=folder, link=link, limits=Limits(**limits), say=said.append).run()
    return found, said


def test_a_run_goes_on_from_the_last_stored_round_until_it_is_done(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[2, 0, 1, 2])
    found, said = supervise(job, server, tmp_path / "run")
    plans = [(plan.start_round, plan.rounds) for plan in server.jobs.values()]
    assert plans == [(0, 5), (2, 3), (2, 3), (3, 2)]
    assert {plan.fingerprint for plan in server.jobs.values()} == {Plan.load(job / "app/config/plan.json").fingerprint}
    assert found["status"] == "finished"
    assert [entry["round"] for entry in found["rounds"]] == [0, 1, 2, 3, 4]
    assert [entry["round"] for entry in found["repeated"]] == [0, 1, 2, 3, 4]
    assert found["plan"] == Plan.load(job / "app/config/plan.json").to_json()
    assert find_stored(tmp_path / "run").parent == tmp_path / "run"
    assert said[-1] == "the run has come to its end"


def test_refusals_of_a_round_that_a_further_job_repeats_stay_in_the_record(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[2, 1, 2])
    server.refuses = True  # the round after those that a job comes to its end with, or the last one
    found, _ = supervise(job, server, tmp_path / "run")
    assert [entry["round"] for entry in found["refused"]] == [2, 3, 4]
    assert read_json(tmp_path / "run" / RESULTS_NAME) == found


@pytest.mark.slow
def test_a_run_without_a_stored_round_begins_again(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[0, 5])
    assert supervise(job, server, tmp_path / "run")[0]["status"] == "finished"
    assert [plan.start_round for plan in server.jobs.values()] == [0, 0]


@pytest.mark.slow
def test_jobs_in_a_row_without_a_new_round_end_it_and_a_further_call_goes_on(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[1, 0, 0, 0, 4])
    with pytest.raises(FedLoraError, match="3 jobs in a row have stored no new round"):
        supervise(job, server, tmp_path / "run", tries=3)
    assert len(server.jobs) == 4  # the first has stored one
    assert supervise(job, server, tmp_path / "run", tries=3)[0]["status"] == "finished"


def test_a_supervisor_that_was_ended_follows_the_job_that_it_had_submitted(job: Path, tmp_path: Path) -> None:
    server, folder = Server(tmp_path / "server", lasts=[5]), tmp_path / "run"
    folder.mkdir()
    known = module.Supervisor(job=job, folder=folder, link=server, limits=Limits(), say=print)  # type: ignore[arg-type]
    state = known._begun()
    assert Supervision.load(folder) == state and state.job_id == "job-0"
    assert supervise(job, server, folder)[0]["status"] == "finished"
    assert len(server.jobs) == 1


@pytest.mark.slow
def test_a_job_is_submitted_once_even_if_its_id_was_never_noted(job: Path, tmp_path: Path) -> None:
    server, folder = Server(tmp_path / "server", lasts=[5]), tmp_path / "run"
    folder.mkdir()
    known = module.Supervisor(job=job, folder=folder, link=server, limits=Limits(), say=print)  # type: ignore[arg-type]
    known._begun()
    path = folder / FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "job_id": None}))
    supervise(job, server, folder)
    assert len(server.jobs) == 1


def test_a_server_that_does_not_answer_is_asked_again(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[5])
    server.failures = 3
    found, said = supervise(job, server, tmp_path / "run")
    assert found["status"] == "finished"
    assert any("does not answer" in line and "see whether the server runs" in line for line in said)


class Closing(Server):
    """A server whose job has ended before its last tensors were brought over, and that says so some looks later.

    Args:
        says_so: whether it ever does, and gives away what the job has left.
    """

    def __init__(self, folder: Path, *, lasts: list[int], says_so: bool) -> None:
        super().__init__(folder, lasts=lasts)
        self.says_so = says_so

    def look(self, job_id: str, *, key: str) -> Seen:
        seen = super().look(job_id, key=key)
        if job_id != "job-0" or self.looks[job_id] == 1:
            return seen
        ended = self.says_so and self.looks[job_id] > 3
        return Seen(status="FINISHED:COMPLETED" if ended else "RUNNING", server="now", running=False)

    def fetch(self, job_id: str, folder: Path, *, key: str = "") -> None:
        if key and job_id == "job-0":
            raise NotRunning("the job has ended")
        super().fetch(job_id, folder)


def test_the_last_tensors_of_a_run_that_has_just_ended_are_waited_for(job: Path, tmp_path: Path) -> None:
    server, folder = Closing(tmp_path / "server", lasts=[5], says_so=True), tmp_path / "run"
    assert supervise(job, server, folder)[0]["status"] == "finished"
    assert stored_round(folder / LAST_NAME) == 4
    assert not server.aborted


def test_a_run_whose_last_tensors_never_come_is_not_called_finished_without_them(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ENDING", 0.1)
    server, folder = Closing(tmp_path / "server", lasts=[5, 5], says_so=False), tmp_path / "run"
    found, said = supervise(job, server, folder)
    assert [plan.start_round for plan in server.jobs.values()] == [0, 0]
    assert found["status"] == "finished" and stored_round(folder / LAST_NAME) == 4
    assert any("its last tensors have not come" in line for line in said)


def test_a_job_that_the_server_has_lost_is_gone_on_with(job: Path, tmp_path: Path) -> None:
    class Forgetful(Server):
        def look(self, job_id: str, *, key: str) -> Seen:
            seen = super().look(job_id, key=key)
            gone = Seen(status=UNKNOWN, server="now", running=False, sites=seen.sites)
            return gone if job_id == "job-0" and self.looks[job_id] > 1 else seen

        def download(self, job_id: str, folder: Path) -> Mapping[str, Any]:
            return {} if job_id == "job-0" else super().download(job_id, folder)

    server = Forgetful(tmp_path / "server", lasts=[2, 3])
    found, said = supervise(job, server, tmp_path / "run")
    assert [plan.start_round for plan in server.jobs.values()] == [0, 2]
    assert found["status"] == "finished" and any("the server knows the job no more" in line for line in said)


@pytest.mark.slow
def test_a_site_by_which_jobs_fail_is_left_out_and_the_others_go_on(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[1, 1, 3], absent="c")
    found, said = supervise(job, server, tmp_path / "run", exclude_after=2)
    assert list(server.sent.values()) == [["a", "b", "c"], ["a", "b", "c"], ["a", "b"]]
    assert any(line.startswith("c is left out of the next jobs: 2 failed by it") for line in said)
    assert found["status"] == "incomplete" and found["lacks"] == ["c has no evaluation of the last model"]


def test_a_run_whose_sites_are_not_ready_ends_at_once_and_the_same_command_goes_on(job: Path, tmp_path: Path) -> None:
    server, folder = Server(tmp_path / "server", lasts=[0, 5]), tmp_path / "run"
    server.unready = [{"a": [], "b": [], "c": ["DISK_FULL"]}]
    said: list[str] = []
    with pytest.raises(NotReady, match=r"c: the site's disk is full.*\(DISK_FULL\)") as caught:
        supervise(job, server, folder, said=said)
    assert said and not any("begins again" in line for line in said)
    assert "a: " not in str(caught.value) and len(server.jobs) == 1
    results = read_json(folder / RESULTS_NAME)
    assert (results["status"], results["interrupted_by"]) == ("interrupted", "not_ready")
    found, _ = supervise(job, server, folder)
    assert (found["status"], found["interrupted_by"]) == ("finished", None)
    assert len(server.jobs) == 2


def test_a_site_that_is_not_ready_is_left_out_where_that_is_allowed(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[0, 5])
    server.unready = [{"a": [], "b": [], "c": ["DISK_FULL"]}]
    found, said = supervise(job, server, tmp_path / "run", exclude_after=1)
    assert list(server.sent.values()) == [["a", "b", "c"], ["a", "b"]]
    assert any("was interrupted (not_ready)" in line for line in said)
    assert found["interrupted_by"] is None


def test_a_folder_that_is_still_in_use_ends_a_run_in_its_first_job_alone(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "first", lasts=[0])
    server.unready = [{"a": [], "b": [], "c": ["BUSY"]}]
    with pytest.raises(NotReady, match="c: another run of this experiment"):
        supervise(job, server, tmp_path / "first-run")
    later = Server(tmp_path / "later", lasts=[2, 0, 3])
    later.unready = [{}, {"a": [], "b": [], "c": ["BUSY"]}]
    assert supervise(job, later, tmp_path / "later-run")[0]["status"] == "finished"
    assert len(later.jobs) == 3


def test_a_run_that_is_given_up_does_not_stay_running(job: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", lasts=[1, 0])
    with pytest.raises(FedLoraError, match="1 jobs in a row"):
        supervise(job, server, tmp_path / "run", tries=1)
    results = read_json(tmp_path / "run" / RESULTS_NAME)
    assert (results["status"], results["interrupted_by"]) == ("interrupted", "gave_up")


def test_a_job_that_was_changed_by_hand_is_refused_before_it_is_submitted(job: Path, tmp_path: Path) -> None:
    shutil.copytree(job, tmp_path / "job")
    path = tmp_path / "job" / "app" / "config" / "config_fed_server.json"
    path.write_text(path.read_text().replace('"task_request_interval": 0.1', '"task_request_interval": 5'))
    server = Server(tmp_path / "server", lasts=[5])
    with pytest.raises(ConfigError, match=r"config_fed_server.json is not as monai-fedlora job writes it"):
        supervise(tmp_path / "job", server, tmp_path / "run")
    assert not server.jobs


def test_another_runs_folder_is_refused(job: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RESULTS_NAME).write_text("{}")
    with pytest.raises(ConfigError, match="results of another run"):
        supervise(job, Server(tmp_path / "server", lasts=[]), tmp_path / "run")
    (tmp_path / "run" / RESULTS_NAME).unlink()
    Supervision(plan_sha256="0", job="elsewhere").save(tmp_path / "run")
    with pytest.raises(ConfigError, match="run of another job"):
        supervise(job, Server(tmp_path / "server", lasts=[]), tmp_path / "run")


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 2}', '{"format": 1, "left_out": 3}'])
def test_a_damaged_state_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ConfigError, match=FILE_NAME):
        Supervision.load(tmp_path)


@pytest.mark.parametrize("limits", [{"tries": 0}, {"exclude_after": 0}, {"silence": 1}, {"patience": float("nan")}])
def test_limits_out_of_range_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limits))):
        Limits(**limits)


@pytest.mark.slow
def test_a_continued_job_is_that_of_resume_by_hand(job: Path, tmp_path: Path) -> None:
    plan = Plan.load(job / "app/config/plan.json")
    stored = tmp_path / "workspace" / LAST_NAME
    stored.parent.mkdir()
    save_shared(stored, Server.begins_with[1], plan=plan, round_number=1)
    continued_job(find_stored(tmp_path), tmp_path / "mine")
    by_hand: dict[str, Any] = {"experiment": "hearts", "start_from": stored, "resume": True}
    write_job("dual_lora", output=tmp_path / "theirs", sites=SITES, **by_hand)
    files = {path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*") if path.is_file()
    }
    for name in files:
        assert (tmp_path / "mine" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


def test_a_run_without_a_stored_round_cannot_be_continued(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no round of that run came to its end"):
        find_stored(tmp_path)


def test_tensors_that_name_no_plan_are_refused(job: Path, tmp_path: Path) -> None:
    save_tensors(tmp_path / LAST_NAME, {"a": torch.zeros(1)}, {"round": "1"})
    with pytest.raises(WeightsError, match="does not say by which plan"):
        stored_plan(tmp_path / LAST_NAME)
