"""What the numbers of a benchmark were measured on."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Processor, number of cores, those of them that this process may use, and versions."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def matrix_rate(rows: int, width: int, *, seconds: float = 1.0) -> float:
    """Floating-point operations per second of tokens (rows, width) times a layer (width, 4 width).

    The best product of those that fit into the given time, and of ten at least.
    """
    tokens, layer = torch.rand(rows, width), torch.rand(width, 4 * width)
    taken: list[float] = []
    while len(taken) < 10 or sum(taken) < seconds:
        started = time.perf_counter()
        tokens @ layer
        taken.append(time.perf_counter() - started)
    return 2 * rows * width * 4 * width / min(taken)
