from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from monai_fedlora.engines.seeds import mix, seed_everything


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
