from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_fedlora.engines import distributed
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import ConfigError

PROGRAM = """
import json, sys
import torch
from ignite.engine import Engine
from monai_fedlora.engines import distributed
from monai_fedlora.engines.epoch_metrics import ClassificationMetrics
from monai_fedlora.engines.sampler import CaseSampler

distributed.start()
scores = torch.softmax(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), dim=1)
labels = [0, 1, 1, 0, 1]
engine = Engine(lambda _, i: [{"pred": scores[i], "label": labels[i]}])
ClassificationMetrics().attach(engine, "key")
engine.run(list(CaseSampler(labels, shuffle=False)))

torch.manual_seed(distributed.rank())
network = distributed.data_parallel(torch.nn.Linear(3, 1, bias=False), device=torch.device("cpu"))
network(torch.full((1, 3), float(distributed.rank() + 1))).sum().backward()
result = {
    "metrics": engine.state.metric_details["classification"],
    "gradient": network.module.weight.grad.tolist(),
    "is_main": distributed.is_main(),
    "unwrapped": type(distributed.unwrap(network)).__name__,
}
with open(f"{sys.argv[1]}/{distributed.rank()}.json", "w") as stream:
    json.dump(result, stream)
del network
distributed.stop()
distributed.stop()
"""


def test_a_single_process_needs_no_group() -> None:
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    network = nn.Linear(1, 1)
    assert distributed.unwrap(network) is network
    distributed.stop()


def test_where_nothing_trains_there_is_nothing_to_exchange() -> None:
    network = torch.nn.Linear(3, 1).requires_grad_(False)
    assert distributed.data_parallel(network, device=torch.device("cpu")) is network


def test_a_start_without_torchrun_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match=r"torch\.distributed\.run --standalone"):
        distributed.start()


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert distributed.process_device() == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.process_device() == torch.device("cpu")


@pytest.mark.slow
def test_two_processes_with_unequal_shares_agree_on_metrics_and_gradients(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(program), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scores = torch.softmax(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    for rank in (0, 1):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result["metrics"] == classification_metrics(scores, [0, 1, 1, 0, 1])
        assert result["gradient"] == [[1.5, 1.5, 1.5]]
        assert result["is_main"] is (rank == 0)
        assert result["unwrapped"] == "Linear"
