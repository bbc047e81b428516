from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from monai_fedlora.engines import distributed
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.engines.store import entries
from monai_fedlora.errors import ConfigError, FedLoraError
from tests.engines import several_trainings as work
from tests.engines.several import begin, ended, together


def test_a_single_process_needs_no_group() -> None:
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    network = nn.Linear(1, 1)
    assert distributed.unwrap(network) is network
    distributed.stop()
    labels = torch.tensor([0, 1, 1])
    assert distributed.share_of_step(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), labels) is None


def test_where_nothing_trains_there_is_nothing_to_exchange() -> None:
    network = torch.nn.Linear(3, 1).requires_grad_(False)
    assert distributed.data_parallel(network, device=torch.device("cpu")) is network


def test_a_start_without_torchrun_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match=r"torch\.distributed\.run --standalone"):
        distributed.start()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "long"])
def test_a_time_to_wait_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, timeout: Any) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match=r"process_timeout is .*; give a number of seconds above 0"):
        distributed.start(timeout=timeout)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, *, local: int, processes: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))


def test_processes_that_do_not_find_each_other_are_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        announced = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in announced.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(FedLoraError, match="the port is in use"):
            distributed.start(timeout=5)
    monkeypatch.delenv("RANK")
    with pytest.raises(FedLoraError, match="torchrun did not start them"):
        distributed.start(timeout=5)


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4, local=3, processes=4)
    assert distributed.process_device() == torch.device("cuda", 3)
    gpus(monkeypatch, 0, local=3, processes=4)
    assert distributed.process_device() == torch.device("cpu")


@pytest.mark.parametrize("local", [0, 2])
def test_more_processes_than_gpus_are_refused_by_all_of_them_before_they_meet(
    monkeypatch: pytest.MonkeyPatch, local: int
) -> None:
    gpus(monkeypatch, 2, local=local, processes=3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("a GPU was taken"))
    with pytest.raises(ConfigError, match=r"3 processes .* sees 2 GPU\(s\).*--nproc_per_node=2"):
        distributed.start()


def test_a_group_on_gpus_is_bound_to_them_and_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2, local=1, processes=2)
    taken, asked = [], []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda **settings: asked.append(settings))
    distributed.start(timeout=90)
    device = torch.device("cuda", 1)
    assert taken == [device]
    assert [(a["backend"], a["device_id"], a["timeout"].total_seconds()) for a in asked] == [("nccl", device, 90)]


def test_an_error_that_another_process_caused_is_told_from_an_own_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:38215")
    with pytest.raises(RuntimeError, match="Connection closed") as alone, distributed.others_explained():
        raise lost
    assert alone.value is lost
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    waited = pytest.raises(FedLoraError, match=r"process 0 of 2 waited for another one.*process_timeout")
    with waited, distributed.others_explained():
        raise lost
    with pytest.raises(RuntimeError, match="mat1 and mat2"), distributed.others_explained():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


_ALONE = """
import os
from pathlib import Path
import torch
from monai_fedlora.engines import distributed

threads = lambda: [one.read_text() for one in Path("/proc/self/task").glob("*/comm") if "gloo" in one.read_text()]
distributed.start(timeout=30)
kept = distributed.data_parallel(torch.nn.Linear(3, 2), device=torch.device("cpu"))
kept(torch.ones(1, 3)).sum().backward()
kept.itself = kept
during = len(threads())
distributed.stop()
print(during, len(threads()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_of_the_group_is_left_when_the_interpreter_shuts_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **place, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", _ALONE], env=environment, capture_output=True, text=True, timeout=120)
    during, after = done.stdout.split()[-2:]
    assert int(during) > 0, done.stderr
    assert int(after) == 0
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_with_unequal_shares_agree_on_metrics_and_gradients() -> None:
    scores = torch.softmax(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    first, second = together(work.metrics_and_gradients)
    for rank, result in enumerate((first, second)):
        assert result["metrics"] == classification_metrics(scores, [0, 1, 1, 0, 1])
        assert result["gradient"].tolist() == [[1.5, 1.5, 1.5]]
        assert result["is_main"] is (rank == 0)
        assert result["unwrapped"]
    assert torch.equal(first["weight"], second["weight"])
    assert second["table"].tolist() == [0, 0]


RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("dual_lora", "vit", {"together": 4, "cases": 8}),
    ("dual_lora", "convvit", {"together": 4, "cases": 5, "kept": True}),  # at the end one process has no case
    ("fedopal", "vit", {"together": 4, "cases": 11, "accumulation_steps": 2, "max_grad_norm": 0.05}),
    ("fedopal", "convvit", {"together": 2, "cases": 7, "kept": True, "accumulation_steps": 3}),
    ("fedrep", "vit", {"together": 4, "cases": 7, "kept": True, "max_grad_norm": 0.05}),
    ("fedprox", "vit", {"together": 4, "cases": 7}),
    ("pfedst", "vit", {"together": 4, "cases": 7, "kept": True}),
    ("fedavg", "vit", {"together": 4, "cases": 7, "accumulation_steps": 2}),
    ("clip_adapter", "clip", {"together": 4, "cases": 7, "kept": True}),
    ("dual_lora", "vit", {"together": 4, "cases": 7, "kept": True, "optimiser": "adamw"}),
]


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(tmp_path: Path) -> None:
    """The same cases make a step in another order of additions, in float32: 1e-5 of the largest value of a tensor.

    AdamW divides a gradient by its own size, so that rounding alone can move a weight whose gradient vanishes by a
    learning rate; where it steps, a hundredth of the learning rate per step.
    """
    found = together(work.train_all, RUNS, str(tmp_path))
    alone = work.train_all(RUNS, str(tmp_path))
    for run, first, second, expected in zip(RUNS, *found, alone, strict=True):
        adamw = run[2].get("optimiser") == "adamw"
        for name, tensor in expected["trained"].items():
            assert torch.equal(first["trained"][name], second["trained"][name]), run
            limit = 4 * 1e-4 if adamw else 1e-5 * max(1.0, float(tensor.abs().max()))
            torch.testing.assert_close(first["trained"][name], tensor, rtol=0, atol=limit, msg=f"{run}: {name}")
        assert first["loss"] == second["loss"] == pytest.approx(expected["loss"], rel=1e-5), run
        before = work.network_of(*run[:2]).state_dict()
        assert any(not torch.equal(before[name], tensor) for name, tensor in expected["trained"].items())


@pytest.mark.slow
def test_two_processes_that_are_started_again_go_on_to_the_bit() -> None:
    settings = {"together": 4, "cases": 7, "accumulation_steps": 2, "optimiser": "adamw"}
    whole, _ = together(work.train_epochs, settings, 2, None)
    first = together(work.train_epochs, settings, 1, None)
    second, _ = together(work.train_epochs, settings, 1, first)
    assert second["epoch"] == whole["epoch"] == 2
    assert [name for name in whole["trained"] if not torch.equal(whole["trained"][name], second["trained"][name])] == []
    assert second["loss"] == whole["loss"]


@pytest.mark.slow
def test_a_process_with_another_backbone_is_refused_by_all() -> None:
    said = together(work.other_backbone)
    assert (
        said
        == [
            "WeightsError: process 1 has other frozen weights than process 0; give every process the same backbone file"
        ]
        * 2
    )


@pytest.mark.slow
@pytest.mark.parametrize(("how", "timeout"), [("raises", 60), ("dies", 60), ("stands still", 6)])
def test_a_process_that_is_lost_takes_the_others_down_with_a_message(how: str, timeout: float, tmp_path: Path) -> None:
    started = begin(work.lose_one, how, timeout=timeout, folder=str(tmp_path))
    begun = time.monotonic()
    started[0].join(20)
    assert started[0].exitcode == 1
    assert time.monotonic() - begun < 20
    assert "FedLoraError: process 0 of 2 waited for another one" in (tmp_path / "0.txt").read_text()
    ended(started, within=0)
    if how == "raises":
        assert "a file of this process cannot be read" in (tmp_path / "1.txt").read_text()


@pytest.mark.slow
def test_two_processes_fill_one_store_and_read_what_they_kept(tmp_path: Path) -> None:
    limit = 12 * 3000
    found = together(work.fill, str(tmp_path / "frozen" / "site"), limit, 500)
    assert found == [(0, 1), (0, 1)]
    assert sum(entry.size for entry in entries(tmp_path / "frozen")) <= 2 * limit
    assert list(tmp_path.rglob("*.tmp")) == []


@pytest.mark.slow
def test_two_processes_of_a_site_read_and_compute_a_case_once(tmp_path: Path) -> None:
    cases = 16
    first, second = together(work.read_together, str(tmp_path / "frozen" / "site"), cases)
    read, passed = first[0] + second[0], first[1] + second[1]
    assert cases <= read <= cases + 4  # the first one is tried by both, and both may meet at one
    assert cases <= passed <= cases + 2
    assert torch.equal(first[2], second[2])
