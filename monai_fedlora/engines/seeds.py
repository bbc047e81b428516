"""Seeds that depend on what is being done and never on when the process started, and what repeats to the bit.

On a processor the same seeds, data, settings, versions and number of threads give the same bits in float32. In bfloat16
all but one layer does: oneDNN's gradient of a depthwise convolution, which methods have that train all of CineMA. On a
GPU convolutions are deterministic, and so is the forward pass; the backward pass of fused attention adds in an order
that differs from run to run, unless :func:`repeating_kernels` forbids it.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_ONE_THREAD = threading.RLock()


def mix(seed: int, *more: int | str) -> int:
    """Derive a seed in [0, 2**32) from a base seed and any number of names or indices.

    The parts are hashed together, so that (seed, site, round) and (seed + 1, site, round - 1) share nothing.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *more))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave Python's, NumPy's and torch's global random states, and cuDNN's settings, as they were before.

    They are the process's, so that another thread waits until this one is through, and neither draws the other's
    numbers.
    """
    with _ONE_THREAD, _kept():
        yield


@contextmanager
def _kept() -> Iterator[None]:
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    backend = torch.backends.cudnn
    settings = backend.deterministic, backend.benchmark
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002
            backend.deterministic, backend.benchmark = settings


def seed_everything(seed: int, *more: int | str) -> int:
    """Seed Python, NumPy and torch (all devices) from ``mix(seed, *more)`` and make cuDNN deterministic.

    Returns:
        The derived seed.
    """
    derived = mix(seed, *more)
    random.seed(derived)
    np.random.seed(derived)  # noqa: NPY002  (MONAI's transforms draw from the global state)
    if torch.accelerator.is_available():
        torch.manual_seed(derived)
    else:  # without asking for the state of devices that are not there, which takes longer than all else here
        torch.default_generator.manual_seed(derived)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return derived


@contextmanager
def repeating_kernels(*, enabled: bool = True) -> Iterator[None]:
    """Let PyTorch choose kernels that give the same bits in every run, and refuse operations that have none.

    On a GPU the backward passes of fused attention then add in a fixed order, and cuDNN's attention, which cannot, is
    left out; cuBLAS needs its workspace fixed before its first product in a process, by ``CUBLAS_WORKSPACE_CONFIG``,
    which is set here where nobody has. PyTorch's setting is the process's and is put back at the end.

    Args:
        enabled: False changes nothing.
    """
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nothing here reads what it has not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills
