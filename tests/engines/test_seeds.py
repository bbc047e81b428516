from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from monai_fedlora.engines.seeds import mix, repeating_kernels, seed_everything


def test_every_part_matters_and_so_does_its_place() -> None:
    seeds = {mix(1, 2), mix(2, 1), mix(12), mix(1, "2"), mix(1, "a", 2), mix(1, "a2"), mix(1)}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.slow
def test_a_seed_is_the_same_in_another_process() -> None:
    program = "from monai_fedlora.engines.seeds import mix; print(mix(7, 'site_1', 3))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(answer.stdout) == mix(7, "site_1", 3)


def test_python_numpy_and_torch_repeat() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    assert seed_everything(3, "x") == mix(3, "x")
    first = draw()
    seed_everything(3, "x")
    assert draw() == first
    seed_everything(3, "y")
    assert draw() != first


def test_kernels_that_repeat_are_asked_for_inside_a_context_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with repeating_kernels(enabled=False):
        assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"), repeating_kernels():
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        with repeating_kernels():
            pass
        assert torch.are_deterministic_algorithms_enabled()
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1), accumulate=False)
    assert not torch.are_deterministic_algorithms_enabled()
