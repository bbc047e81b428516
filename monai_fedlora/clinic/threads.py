"""Number of threads of a process that classifies."""

from __future__ import annotations

import os

import torch

from monai_fedlora.environment import THREADS
from monai_fedlora.errors import ConfigError

USUAL_THREADS = 4
"""Threads of torch by default (ours), which leaves some cores to other programs."""


def torch_threads() -> int:
    """Number of threads for torch: ``MONAI_FEDLORA_THREADS``, else :data:`USUAL_THREADS` or fewer.

    Raises:
        ConfigError: the variable is no number from 1.
    """
    text = os.environ.get(THREADS)
    if text is None:
        return min(USUAL_THREADS, torch.get_num_threads())
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{THREADS}={text} is no number of threads; give 1 or more")
    return int(text)
