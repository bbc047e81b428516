"""Sites work in processes that may end at any time, of which each is forked from one that has imported everything."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode

from monai_fedlora.errors import Aborted, WorkerDied
from monai_fedlora.federated import workers as module
from monai_fedlora.federated.executor import SiteExecutor
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.flare_context import open_message
from monai_fedlora.federated.workers import POOL, DiedIdle, Pool, Worker, setup_of_process
from monai_fedlora.files import read_json, write_json
from tests.federated.conftest import Prepared, same_bits
from tests.federated.test_executor import Client, client, streamed  # noqa: F401

NOTHING: dict[str, np.ndarray] = {}


def never() -> bool:
    return False


def quick(places: int = 3, *, stays: bool = True) -> Pool:
    """A pool for workers that compute nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_POOL", "tests.federated.quick_pool")
        return Pool(places=places, stays=stays)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with closing(quick()) as made:
        yield made


@pytest.fixture(scope="module")
def of_sites() -> Iterator[Pool]:
    """One for all sites of this module, which import once."""
    with closing(Pool(places=3)) as made:
        yield made


def begun(pool: Pool, private: Path, work: str = "Deeds") -> Worker:
    setup = {"work": f"tests.federated.deeds.{work}", "site": "north", "config": "/", "local": None, "simulated": True}
    return Worker(pool.address, {**setup_of_process(), **setup, "private": str(private)}, should_stop=never)


def do(worker: Worker, deed: str, should_stop: Callable[[], bool] = never) -> dict[str, Any]:
    return worker.ask({"do": deed}, NOTHING, should_stop=should_stop)[0]


def test_why_a_process_ended_by_itself_stands_in_the_sites_own_log(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=r"exit code 1; see site\.log"):
        do(begun(pool, tmp_path, work="Nobody"), "anything")
    assert "has no attribute 'Nobody'" in (tmp_path / "site.log").read_text()


@pytest.fixture
def worker(pool: Pool, tmp_path: Path) -> Iterator[Worker]:
    made = begun(pool, tmp_path)
    yield made
    made.end()


def gone(process: int, seconds: float = 5.0) -> bool:
    """Whether a process ends within a time."""
    end = time.monotonic() + seconds
    while psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# ---- one worker ------------------------------------------------------------------------------------------


def test_it_answers_in_a_process_of_its_own_as_the_one_that_asks_would(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CLIENT", "set later than the pool")
    monkeypatch.chdir(tmp_path)
    asked = begun(pool, tmp_path)
    tensors = {"a": np.arange(6, dtype=np.float16).reshape(2, 3)[:, ::2], "b": np.array(1, np.uint8)}
    said, sent = asked.ask({"do": "nothing"}, tensors, should_stop=never)
    assert said == {"process": asked.process, "folder": str(tmp_path), "variable": "set later than the pool"}
    assert said["process"] != os.getpid()
    assert same_bits(sent, {key: value + 1 for key, value in tensors.items()})
    large = {"large": np.random.default_rng(0).integers(0, 100, 5_000_000, np.uint8)}
    assert same_bits(asked.ask({"do": "nothing"}, large, should_stop=never)[1], {"large": large["large"] + 1})
    asked.end()
    assert gone(asked.process)


def test_what_it_logs_and_prints_stays_in_the_private_folder(
    worker: Worker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    do(worker, "log")
    kept = tmp_path / "site.log"
    assert "INFO some_library: patient007" in kept.read_text()
    assert "patient008" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "patient" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("deed", "said"), [("kill", r"signal 9 \(SIGKILL\): Linux sends it when memory runs out"), ("crash", "SIGSEGV")]
)
def test_its_death_is_told_with_its_cause(worker: Worker, tmp_path: Path, deed: str, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerDied, match=said) as death:
        do(worker, deed)
    assert death.type is WorkerDied
    assert time.monotonic() - started < 3
    assert not worker.alive
    if deed == "crash":
        assert "Segmentation fault" in (tmp_path / "site.log").read_text()


def test_its_death_before_it_has_begun_is_another_one(worker: Worker) -> None:
    os.kill(worker.process, signal.SIGSTOP)
    assert worker.alive
    with pytest.raises(DiedIdle, match="SIGKILL"):
        do(worker, "nothing", should_stop=lambda: bool(os.kill(worker.process, signal.SIGKILL)))


def test_it_may_leave_and_that_is_a_death_too(worker: Worker) -> None:
    with pytest.raises(WorkerDied, match="exit code 1"):
        do(worker, "leave")


def test_it_stops_when_asked_to(worker: Worker) -> None:
    asked = time.time()
    said = do(worker, "wait", should_stop=lambda: time.time() > asked + 0.2)
    assert said["begun"] >= asked
    assert do(worker, "nothing")["process"] == worker.process


def test_one_that_hangs_is_ended_some_time_after_it_was_asked_to_stop(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TO_STOP", 0.3)
    with pytest.raises(Aborted):
        do(worker, "hang", should_stop=lambda: True)
    assert not worker.alive
    assert gone(worker.process)


OF_A_CLIENT = """
import sys
from pathlib import Path
from tests.federated.test_workers import begun, do, quick
pool = quick()
worker = begun(pool, Path(sys.argv[1]))
print(pool._process.pid, worker.process, flush=True)
do(worker, "hang")
"""


@pytest.mark.slow
def test_it_ends_with_who_has_asked_whatever_it_does(tmp_path: Path) -> None:
    asks = subprocess.Popen([sys.executable, "-c", OF_A_CLIENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert asks.stdout is not None
    of_pool, of_worker = map(int, asks.stdout.readline().split())
    time.sleep(0.3)
    assert not gone(of_worker, seconds=0)
    asks.kill()
    asks.communicate()
    assert gone(of_worker)
    assert gone(of_pool)


def test_its_pool_ends_it_too_and_removes_its_folder(tmp_path: Path) -> None:
    own = quick()
    asked = begun(own, tmp_path)
    folder = Path(own.address).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    own.close()
    assert gone(asked.process)
    assert not folder.exists()
    with pytest.raises(OSError):
        begun(own, tmp_path)


def test_memory_is_taken_from_it_first(worker: Worker) -> None:
    do(worker, "nothing")
    assert Path(f"/proc/{worker.process}/oom_score_adj").read_text() == "500\n"


# ---- turns -----------------------------------------------------------------------------------------------


def test_workers_beyond_the_places_take_turns(tmp_path: Path) -> None:
    turns, said = quick(places=2, stays=False), list[dict[str, Any]]()
    assert turns.address

    def site() -> None:
        for _ in range(2):
            taken = begun(turns, tmp_path)
            assert not taken.stays
            said.append(do(taken, "work_a_while"))
            taken.end()

    threads = [threading.Thread(target=site) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns.close()
    assert len({each["process"] for each in said}) == 10
    moments = sorted([(each["begun"], 1) for each in said] + [(each["ended"], -1) for each in said])
    at_once = np.cumsum([change for _, change in moments])
    assert at_once.max() == 2


def test_who_gives_up_while_waiting_takes_no_place(tmp_path: Path) -> None:
    one = quick(places=1)
    first = begun(one, tmp_path)
    setup = {**setup_of_process(), "work": "tests.federated.deeds.Deeds", "private": str(tmp_path)}
    started = time.monotonic()
    with pytest.raises(Aborted, match="waited for its turn"):
        Worker(one.address, setup, should_stop=lambda: time.monotonic() > started + 0.2)
    first.end()
    assert do(begun(one, tmp_path), "nothing")
    one.close()


@pytest.mark.slow
def test_nothing_of_cuda_is_asked_before_the_fork() -> None:
    program = """
import torch
def asked(*_): raise AssertionError("CUDA was asked")
torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = asked
from monai_fedlora.federated import worker_pool
worker_pool._import_all()
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


# ---- a site ----------------------------------------------------------------------------------------------


@pytest.fixture
def site(client: Client, of_sites: Pool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:  # noqa: F811
    monkeypatch.setenv(POOL, of_sites.address)
    client.executor = SiteExecutor()
    yield client
    client.executor.close()


def undisturbed(site: Client, prepared: Prepared, folder: Path) -> list[Any]:
    one = Site(name="site-1", plan=site.plan, private_root=folder, source=prepared.source)
    first = one.train_round(0, site.shared, accepted=-1)
    return [first, one.train_round(1, first.tensors, accepted=0)]


def payload(site: Client, shared: Any = None, number: int = 0) -> Any:
    return open_message(site.train(shared, number), DataKind.WEIGHTS).data


@pytest.mark.slow
def test_a_site_whose_process_is_killed_at_work_loses_that_task_alone(
    site: Client,
    prepared: Prepared,
    tmp_path: Path,
    streamed: Callable[[], str],  # noqa: F811
) -> None:
    site.executor.work = "tests.federated.failing_sites.DiesOnce"
    first, second = undisturbed(site, prepared, tmp_path / "other")
    assert same_bits(payload(site), first.tensors)
    assert site.train(dict(first.tensors), 1).get_return_code() == "WORKER_DIED"
    assert "SIGKILL" in site.errors
    assert "task failed with WorkerDied; details are in errors.log" in streamed()
    assert same_bits(payload(site, dict(first.tensors), 1), second.tensors)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [None, 0.5], ids=["before it is asked", "when it has been asked"])
def test_a_site_whose_process_is_killed_at_rest_loses_nothing(
    site: Client, prepared: Prepared, tmp_path: Path, seconds: float | None
) -> None:
    first, second = undisturbed(site, prepared, tmp_path / "other")
    payload(site)
    worker = site.executor._worker
    assert worker is not None
    if seconds is None:
        os.kill(worker.process, signal.SIGKILL)
    else:
        os.kill(worker.process, signal.SIGSTOP)  # so that it does not begin
        threading.Timer(seconds, os.kill, (worker.process, signal.SIGKILL)).start()
    assert same_bits(payload(site, dict(first.tensors), 1), second.tensors)
    assert site.executor._worker is not worker
    assert not (site.private / "errors.log").exists()


@pytest.mark.slow
def test_a_site_keeps_its_process_over_rounds_and_ends_it_with_the_run(site: Client) -> None:
    shared = payload(site)
    worker = site.executor._worker
    assert worker is not None
    payload(site, shared, 1)
    assert site.executor._worker is worker
    site.executor.handle_event(EventType.END_RUN, site.context)
    assert gone(worker.process)


@pytest.mark.slow
def test_a_site_without_a_simulations_pool_has_its_own(
    site: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POOL, str(tmp_path / "gone"))
    site.executor.handle_event(EventType.START_RUN, site.context)
    assert site.train().get_return_code() == ReturnCode.OK
    own = site.executor._pool
    assert own is not None
    own._process.kill()
    own._process.wait()
    assert site.train(round_number=1).get_return_code() == ReturnCode.OK


@pytest.mark.slow
def test_who_was_in_a_diverging_batch_stays_in_the_private_folder(
    site: Client,
    prepared: Prepared,
    streamed: Callable[[], str],  # noqa: F811
) -> None:
    site.executor.work = "tests.federated.failing_sites.Diverges"
    listed = read_json(prepared.data / "site-1" / "datalist.json")
    subjects = [case["subject"] for case in listed["training"]]
    assert site.train().get_return_code() == "DIVERGED"
    for log in (site.errors, (site.private / "site.log").read_text()):
        assert any(subject in log for subject in subjects)
    for name in ("errors.log", "site.log"):
        assert stat.S_IMODE((site.private / name).stat().st_mode) == 0o600
    assert "task failed with Diverged" in streamed()
    assert not any(subject in streamed() for subject in subjects)
    assert str(site.private) not in streamed()


def unreadable_image(prepared: Prepared, folder: Path) -> str:
    """Replace a patient's image by text; return the folder of data."""
    listed = read_json(prepared.data / "site-1" / "datalist.json")
    broken = folder / "secretfolder" / "broken.nii.gz"
    broken.parent.mkdir()
    broken.write_text("not an image")
    listed["training"][0] |= {"subject": "secretfolder", "ed": str(broken)}
    write_json(folder / "data" / "site-1" / "datalist.json", listed)
    return str(folder / "data")


@pytest.mark.slow
def test_what_is_wrong_with_a_file_stays_in_the_private_folder(
    site: Client,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    streamed: Callable[[], str],  # noqa: F811
) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_DATA", unreadable_image(prepared, tmp_path))
    reply = site.train()
    assert reply.get_return_code() == "DATA_UNUSABLE"
    assert set(reply) == {"__headers__"}
    assert "secretfolder" in site.errors
    assert "task failed with" in streamed()
    for secret in ("secretfolder", str(tmp_path), str(prepared.data)):
        assert secret not in streamed()
