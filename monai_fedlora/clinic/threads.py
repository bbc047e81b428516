"""How many threads a process that classifies may use."""

from __future__ import annotations

import os

import torch

from monai_fedlora.environment import THREADS
from monai_fedlora.errors import ConfigError

USUAL_THREADS = 4
"""Of torch, where nothing is said (ours): other programs of the machine keep some."""


def torch_threads() -> int:
    """How many threads torch may use: ``MONAI_FEDLORA_THREADS``, else :data:`USUAL_THREADS` or fewer.

    Raises:
        ConfigError: the variable is no number from 1.
    """
    text = os.environ.get(THREADS)
    if text is None:
        return min(USUAL_THREADS, torch.get_num_threads())
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{THREADS}={text} is no number of threads; give 1 or more")
    return int(text)
