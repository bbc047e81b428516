"""The simulator's wrapper on a stand-in, and NVFlare's simulator on real federations."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.federated import lock
from monai_fedlora.federated import simulator as module
from monai_fedlora.federated.lock import Busy
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.simulator import default_threads, simulate
from monai_fedlora.federated.workers import Pool
from monai_fedlora.files import load_tensors, read_json, write_json
from tests.federated.conftest import Prepared, written_job
from tests.helpers import make_plan

# ---- with a stand-in for NVFlare's simulator -------------------------------------------------------------

STAND_IN = """
import json, os, pathlib, subprocess, sys, time
job, _, workspace, _, threads = sys.argv[1:]
def write(path, value):
    path.with_suffix(".new").write_text(json.dumps(value))
    path.with_suffix(".new").replace(path)

wanted = json.load(open(pathlib.Path(job) / "wanted.json"))
run = pathlib.Path(workspace) / "server" / "simulate_job"
run.mkdir(parents=True)
seen = {key: value for key, value in os.environ.items() if key.startswith("MONAI_FEDLORA_")}
pool = seen.pop("MONAI_FEDLORA_WORKERS")
print("said", threads)
print(wanted.get("log", ""))
for name in wanted.get("files", []):
    (run / name).write_bytes(b"new")
for name, text in wanted.get("private", {}).items():
    path = pathlib.Path(os.environ["MONAI_FEDLORA_PRIVATE_DIR"]) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
for number, results in enumerate(wanted.get("results", [])):
    write(run / "results.json", {**results, "threads": threads, "environment": seen})
    for _ in range(1000 if "watched" in wanted else 0):
        if (pathlib.Path(job) / f"seen {number}").exists():
            break
        time.sleep(0.02)
if wanted.get("linger"):
    write(run / "results.json", {"status": "finished", "pids": [os.getpid()]})
    time.sleep(1)
    (pathlib.Path(workspace) / "server" / "pool_stats").mkdir()
    write(pathlib.Path(workspace) / "server" / "pool_stats" / "simulator_cell_stats.json", {})
    time.sleep(60)
if wanted.get("hang"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    write(run / "results.json", {"pids": [os.getpid(), child.pid]})
    time.sleep(60)
sys.exit(wanted.get("code", 0))
"""


class StandIn:
    """A job folder that says what the stand-in shall do."""

    def __init__(self, folder: Path) -> None:
        self.job, self.workspace = folder / "job", folder / "workspace"
        write_json(self.job / "app" / "config" / "plan.json", make_plan().to_json())

    def __call__(self, *, threads: int | None = None, **wanted: Any) -> Mapping[str, Any]:
        options = {key: wanted.pop(key) for key in ("on_progress", "data", "backbone", "overwrite") if key in wanted}
        if on_progress := options.get("on_progress"):
            wanted["watched"], seen = True, itertools.count()

            def then_go_on(results: Mapping[str, Any]) -> None:
                on_progress(results)
                (self.job / f"seen {next(seen)}").touch()

            options["on_progress"] = then_go_on
        write_json(self.job / "wanted.json", wanted)
        return simulate(self.job, workspace=self.workspace, threads=threads, **options)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "stand_in_simulator.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setattr(module, "_SIMULATOR", "stand_in_simulator")
    return StandIn(tmp_path)


FINISHED = {"status": "finished"}


def test_a_run_leaves_its_results_and_tensors_in_the_workspace(stand_in: StandIn) -> None:
    files = ["shared.safetensors", "best_shared.safetensors"]
    results = stand_in(results=[FINISHED], files=files)
    assert results == read_json(stand_in.workspace / "results.json")
    assert all((stand_in.workspace / name).read_bytes() == b"new" for name in files)
    assert (stand_in.workspace / "simulator.log").read_text() == "said 2\n\n"


def test_a_run_that_came_to_its_end_incomplete_is_a_result(stand_in: StandIn) -> None:
    wanted = {"status": "incomplete", "lacks": ["north has no evaluation"]}
    assert stand_in(results=[wanted])["lacks"] == ["north has no evaluation"]


def test_sites_are_told_where_their_things_are(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stand_in.job.parent)
    monkeypatch.setenv("MONAI_FEDLORA_DATA", "/set/before")
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", "toys/policy.json")
    monkeypatch.setenv("MONAI_FEDLORA_LEDGER_COPY", "/of/the/real/one")
    write_json(stand_in.job.parent / "toys" / "policy.json", {"least_cases": 1})
    seen = stand_in(results=[FINISHED], backbone="some/file")["environment"]
    assert seen == {
        "MONAI_FEDLORA_DATA": "/set/before",
        "MONAI_FEDLORA_BACKBONE": str(stand_in.job.parent / "some/file"),
        "MONAI_FEDLORA_POLICY": str(stand_in.job.parent / "toys/policy.json"),
        "MONAI_FEDLORA_PRIVATE_DIR": str(stand_in.workspace / "private"),
        "MONAI_FEDLORA_THREADS": "1",
        "MONAI_FEDLORA_GPU_PROCESSES": "2",
    }
    monkeypatch.setenv("MONAI_FEDLORA_THREADS", "3")
    monkeypatch.setenv("MONAI_FEDLORA_GPU_PROCESSES", "5")
    seen = stand_in(results=[FINISHED], data="data", overwrite=True)["environment"]
    assert seen["MONAI_FEDLORA_DATA"] == str(stand_in.job.parent / "data")
    assert (seen["MONAI_FEDLORA_THREADS"], seen["MONAI_FEDLORA_GPU_PROCESSES"]) == ("3", "5")


@pytest.mark.slow
@pytest.mark.parametrize("threads, places", [(1, 1), (2, 2), (9, 2), (None, 2)])
def test_at_most_all_sites_run_at_once_and_all_others_wait_for_a_place(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, threads: int | None, places: int
) -> None:
    made = list[tuple[int, bool]]()

    class Noted(Pool):
        def __init__(self, *, places: int, stays: bool) -> None:
            made.append((places, stays))
            super().__init__(places=places, stays=stays)

    monkeypatch.setattr(module, "Pool", Noted)
    assert stand_in(results=[FINISHED], threads=threads)["threads"] == "2"
    assert made == [(places, places == 2)]


def test_as_many_sites_run_at_once_as_have_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10 << 30))
    assert [default_threads(sites) for sites in (1, 3, 6, 50)] == [1, 3, 6, 6]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 30))
    assert default_threads(50) == 1


def test_on_a_gpu_as_many_sites_run_at_once_as_have_its_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 << 30))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for free, threads in ((139, 46), (24, 8), (8, 2), (1, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free << 30, 141 << 30))
        assert default_threads(50) == threads
        assert default_threads(1) == 1


@pytest.mark.parametrize(
    ("options", "processes"),
    [((), 3), (("-gpu", "0"), 3), (("-gpu", "[0,1]"), 3), (("-gpu", "0,1"), 1), (("--gpu", "[0,1],[2]"), 1)],
)
def test_sites_are_told_how_many_share_a_gpu(options: tuple[str, ...], processes: int) -> None:
    assert module._processes_of_a_gpu(3, options) == processes


@pytest.mark.slow
def test_progress_is_shown_while_the_run_goes_on(stand_in: StandIn) -> None:
    seen: list[int] = []
    steps = [{"step": 0}, {"step": 1}, {"step": 2, **FINISHED}]
    stand_in(results=steps, on_progress=lambda results: seen.append(results["step"]))
    assert seen == [0, 1, 2]


def test_nothing_of_an_earlier_run_remains(stand_in: StandIn) -> None:
    stand_in(results=[FINISHED], files=["best_shared.safetensors"], private={"errors.log": "old\n", "site.log": "old"})
    with pytest.raises(ConfigError, match="--overwrite"):
        stand_in(code=1)
    assert (stand_in.workspace / "best_shared.safetensors").read_bytes() == b"new"
    with pytest.raises(FedLoraError) as caught:
        stand_in(code=1, overwrite=True)
    assert "old" not in str(caught.value)
    left = {path.name for path in stand_in.workspace.rglob("*") if path.is_file()}
    assert left == {"simulator.log", ".lock"}


def test_two_runs_do_not_share_a_workspace(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(results: Mapping[str, Any]) -> None:
        with pytest.raises(Busy):
            simulate(stand_in.job, workspace=stand_in.workspace)

    stand_in(results=[FINISHED], on_progress=again)


@pytest.mark.slow
def test_a_killed_simulation_whose_simulator_lives_on_keeps_its_workspace(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE", 0.0)
    write_json(stand_in.job / "wanted.json", {"hang": True})
    code = "import sys; from pathlib import Path; from monai_fedlora.federated import simulator as m\n"
    code += "m._SIMULATOR = 'stand_in_simulator'; m.simulate(Path(sys.argv[1]), workspace=Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(stand_in.job), str(stand_in.workspace)]
    results = stand_in.workspace / "nvflare" / "server" / "simulate_job" / "results.json"
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while not results.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    pids = read_json(results)["pids"]
    try:
        assert alive(pids[0])
        with pytest.raises(Busy, match=f"process {process.pid} "):
            stand_in(results=[FINISHED])
    finally:
        for pid in pids:
            psutil.Process(pid).kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    "wanted, said",
    [
        ({"code": 2}, []),
        ({"code": 2, "log": "09:00 - ERROR - no manifest\n09:00 - ERROR - aborting"}, ["ERROR - no manifest"]),
        (
            {"code": 2, "log": "- ERROR - Traceback (most recent call last):\n- ERROR - unsafe"},
            ["unsafe"],
        ),
        ({"results": [{"status": "running"}]}, []),
        ({"private": {"errors.log": "Traceback\nDataError: a.nii is broken\n\n"}}, ["a.nii is broken", "errors.log"]),
        ({"results": [{"status": "running", "refused": [{"site": "east", "reason": "NaN"}]}]}, ["east", "NaN"]),
    ],
    ids=[
        "failed",
        "error of the server",
        "with its traceback",
        "unfinished",
        "error of a site",
        "refusal",
    ],
)
def test_a_run_that_fails_says_where_to_look(stand_in: StandIn, wanted: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(FedLoraError) as caught:
        stand_in(**wanted)
    for part in (str(stand_in.workspace / "simulator.log"), *said):
        assert part in str(caught.value)


def test_a_folder_that_is_no_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(FedLoraError, match=r"plan\.json does not exist"):
        simulate(tmp_path, workspace=tmp_path / "workspace")
    write_json(tmp_path / "app" / "config" / "plan.json", {})
    with pytest.raises(ConfigError, match=r"plan\.json"):
        simulate(tmp_path, workspace=tmp_path / "workspace")
    assert not (tmp_path / "workspace").exists()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_run_is_over_when_nvflare_has_written_its_statistics_and_only_sleeps(stand_in: StandIn) -> None:
    started = time.monotonic()
    results = stand_in(linger=True)
    assert 1 < time.monotonic() - started < 30
    assert (stand_in.workspace / "nvflare" / "server" / "pool_stats" / "simulator_cell_stats.json").is_file()
    assert not alive(results["pids"][0])


def test_an_interrupt_ends_every_process_and_keeps_what_there_is(stand_in: StandIn) -> None:
    pids: list[int] = []

    def interrupt(results: Mapping[str, Any]) -> None:
        pids.extend(results["pids"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stand_in(hang=True, files=["shared.safetensors"], on_progress=interrupt)
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2
    assert not any(map(alive, pids))
    assert (stand_in.workspace / "shared.safetensors").read_bytes() == b"new"
    assert (stand_in.workspace / "results.json").is_file()


# ---- with NVFlare's own ------------------------------------------------------------------------------------


AROUND = 5000
"""Bytes around a round's tensors, more than which a site that kept asking for its next task would send."""


def run_program(name: str, *args: Any, **environment: str) -> str:
    """Run a console script of this installation; it has to succeed."""
    program = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [program, *map(str, args)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def private_files(workspace: Path) -> dict[str, bytes]:
    root = workspace / "private"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("round-*.safetensors"))}


def final_models(workspace: Path) -> dict[str, dict[str, torch.Tensor]]:
    root = workspace / "private"
    return {str(path.relative_to(root)): load_tensors(path)[0] for path in sorted(root.rglob("final.safetensors"))}


def same_tensors(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def what_was_learnt(results: Mapping[str, Any]) -> Any:
    """The results without clock, traffic, and what a resumed run has otherwise."""
    rounds = json.loads(json.dumps({"rounds": results["rounds"][-1:], "final": results["final"]}))
    for sites in (*(entry["sites"] for entry in rounds["rounds"]), rounds["final"]):
        for report in sites.values():
            for key in ("seconds", "bytes_sent", "bytes_received"):
                report.pop(key, None)
    return rounds


@pytest.fixture(scope="module")
def job(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_job(prepared.plan(), tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def places(prepared: Prepared) -> tuple[Any, ...]:
    return "--data", prepared.data, "--backbone", prepared.backbone


@pytest.fixture(scope="module")
def two_at_once(job: Path, places: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of two rounds with a process for each of two sites."""
    workspace = tmp_path_factory.mktemp("two") / "workspace"
    said = run_program("monai-fedlora", "simulate", job, "--workspace", workspace, "--threads", 2, *places)
    assert "site-1" in said and "results.json" in said
    return workspace


@pytest.mark.slow
def test_a_simulated_federation_finishes_with_a_complete_record(two_at_once: Path, prepared: Prepared) -> None:
    results = read_json(two_at_once / "results.json")
    assert results["status"] == "finished"
    assert results["refused"] == []
    assert [entry["round"] for entry in results["rounds"]] == [0, 1]
    assert set(results["final"]) == set(prepared.plan().sites)
    assert load_tensors(two_at_once / "shared.safetensors")[1]["round"] == "1"
    for entry in results["rounds"]:
        for counts in entry["sites"].values():
            for direction in ("bytes_sent", "bytes_received"):
                assert results["payload_bytes"] < counts[direction] < results["payload_bytes"] + AROUND


@pytest.mark.slow
def test_the_simulator_computes_what_one_process_computes(
    two_at_once: Path, prepared: Prepared, tmp_path: Path
) -> None:
    results = run_in_process(prepared.plan(), folder=tmp_path, **prepared.places)
    assert what_was_learnt(results) == what_was_learnt(read_json(two_at_once / "results.json"))
    shared = [load_tensors(folder / "shared.safetensors")[0] for folder in (two_at_once, tmp_path)]
    assert same_tensors(*shared)
    assert private_files(two_at_once) == private_files(tmp_path)


def uploaded(workspace: Path) -> int:
    """Bytes of all answers that the server has received, by NVFlare's own statistics."""
    statistics = read_json(workspace / "nvflare" / "server" / "pool_stats" / "simulator_cell_stats.json")
    streams = statistics["received_stream_sizes"]["pool"]["cat_data"]
    (sizes,) = (sizes for name, sizes in streams.items() if name.endswith(":server_command:submit_update"))
    return round(2**20 * sum(entry["total"] for entry in sizes if entry))


@pytest.mark.slow
def test_encoded_updates_take_the_bytes_they_promise_and_compute_what_one_process_computes(
    two_at_once: Path, prepared: Prepared, tmp_path: Path
) -> None:
    plan = prepared.plan(wire_dtype="int8", top_k=0.1)
    job = written_job(plan, tmp_path / "job")
    places = {key: str(value) for key, value in (("data", prepared.data), ("backbone", prepared.backbone))}
    simulated, alone = tmp_path / "simulated", tmp_path / "alone"
    results = simulate(job, workspace=simulated, threads=2, **places)
    in_float16 = read_json(two_at_once / "results.json")
    assert results["payload_bytes"] < 0.15 * in_float16["payload_bytes"]
    saved = in_float16["payload_bytes"] - results["payload_bytes"]
    answers = plan.rounds * len(plan.sites)
    difference = uploaded(two_at_once) - uploaded(simulated)
    assert difference == pytest.approx(answers * saved, abs=answers * 400)  # names of types, shapes, numbers of reports
    for before, after in zip(in_float16["rounds"], results["rounds"], strict=True):
        for site in plan.sites:
            sent = [entry["sites"][site]["bytes_sent"] for entry in (before, after)]
            assert sent[0] - sent[1] == pytest.approx(saved, abs=1500)  # a question for a task more or less

    assert what_was_learnt(run_in_process(plan, folder=alone, **prepared.places)) == what_was_learnt(results)
    assert private_files(simulated) == private_files(alone)
    shared = [load_tensors(folder / "shared.safetensors")[0] for folder in (simulated, alone)]
    assert same_tensors(*shared)


@pytest.mark.slow
def test_sites_that_take_turns_in_one_process_slot_compute_the_same_bits(
    two_at_once: Path, job: Path, places: tuple[Any, ...], tmp_path: Path
) -> None:
    run_program("monai-fedlora", "simulate", job, "--workspace", tmp_path, "--threads", 1, *places)
    for name in ("shared.safetensors", "best_shared.safetensors"):
        assert (tmp_path / name).read_bytes() == (two_at_once / name).read_bytes()
    assert len(private_files(tmp_path)) == 2
    assert private_files(tmp_path) == private_files(two_at_once)
    one, other = final_models(tmp_path), final_models(two_at_once)
    assert one.keys() == other.keys() and all(same_tensors(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_nvflares_own_command_needs_no_flags(prepared: Prepared, tmp_path: Path) -> None:
    job = written_job(prepared.plan(rounds=1), tmp_path)
    environment = {**prepared.environment, "HOME": str(tmp_path / "home")}
    run_program("nvflare", "simulator", job, "-w", tmp_path / "workspace", **environment)
    folder = tmp_path / "workspace" / "server" / "simulate_job"
    results = read_json(folder / "results.json")
    assert results["status"] == "finished"
    assert results["refused"] == []
    assert (folder / "shared.safetensors").is_file()
    assert len(list((tmp_path / "workspace").rglob("private/trial/site-*/final.safetensors"))) == 2


@pytest.mark.slow
def test_a_killed_run_resumed_is_an_uninterrupted_one(
    two_at_once: Path, job: Path, places: tuple[Any, ...], prepared: Prepared, tmp_path: Path
) -> None:
    def kill(results: Mapping[str, Any]) -> None:
        if len(results["rounds"]) == 2:
            raise KeyboardInterrupt

    workspace = tmp_path / "workspace"
    with pytest.raises(KeyboardInterrupt):
        simulate(
            job,
            workspace=workspace,
            data=str(prepared.data),
            backbone=str(prepared.backbone),
            threads=2,
            on_progress=kill,
        )
    results = read_json(workspace / "results.json")
    assert (results["status"], results["interrupted_by"]) == ("interrupted", "stopped")
    assert load_tensors(workspace / "shared.safetensors")[1]["round"] == "0"

    rest = tmp_path / "rest"
    settings = [f"--set={name}={value}" for name, value in prepared.plan().training.items()]
    settings += ["--experiment=trial", "--sites=site-1,site-2", "--rounds=1", f"--backbone={prepared.backbone}"]
    start = f"--start-from={workspace / 'shared.safetensors'}"
    run_program("monai-fedlora", "job", "dual_lora", f"--output={rest}", start, "--resume", *settings)
    run_program("monai-fedlora", "simulate", rest, "--workspace", workspace, "--threads", 2, *places)

    results = read_json(workspace / "results.json")
    assert [entry["round"] for entry in results["rounds"]] == [1]
    assert what_was_learnt(results) == what_was_learnt(read_json(two_at_once / "results.json"))
    shared = [load_tensors(folder / "shared.safetensors")[0] for folder in (workspace, two_at_once)]
    assert same_tensors(*shared)
    one, other = final_models(workspace), final_models(two_at_once)
    assert one.keys() == other.keys() and all(same_tensors(one[name], other[name]) for name in one)
