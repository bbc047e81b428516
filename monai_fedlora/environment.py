"""Environment variables that a site sets; a job cannot override them."""

from __future__ import annotations

import os

from monai_fedlora.errors import ConfigError

DATA = "MONAI_FEDLORA_DATA"
"""Folder of prepared data: ``<folder>/<site>/datalist.json``."""

BACKBONE = "MONAI_FEDLORA_BACKBONE"
"""Path of the backbone's safetensors file."""

PRIVATE_DIR = "MONAI_FEDLORA_PRIVATE_DIR"
"""Folder for files that never leave the site: private tensors, optimiser state, error details."""

LEDGER_COPY = "MONAI_FEDLORA_LEDGER_COPY"
"""Folder, best on another disk, that holds the ledger of :data:`PRIVATE_DIR` once more.

Unset, a ledger that was set back is not noticed."""

THREADS = "MONAI_FEDLORA_THREADS"
"""Torch threads of a site's process on the CPU."""


def training_threads() -> int:
    """Torch threads of a training on the CPU: :data:`THREADS`, else one, because the bits of a result depend on it.

    Raises:
        ConfigError: the variable is no number from 1.
    """
    text = os.environ.get(THREADS) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{THREADS}={text} is no number of threads; give 1 or more")
    return int(text)


SERVE_TOKEN = "MONAI_FEDLORA_TOKEN"
"""Token that ``monai-fedlora serve`` requires from browsers."""

CACHE_LIMIT = "MONAI_FEDLORA_CACHE_LIMIT"
"""Gigabytes on disk for preprocessed cases and outputs of frozen blocks; 0 keeps none.

Unset 20, and at most half of what is free there and of what they take already."""

CACHE_MEMORY = "MONAI_FEDLORA_CACHE_MEMORY"
"""Share of the available memory in which stays what is not kept on disk; unset 0.5, and 0 keeps nothing there."""

GPU_FEATURES = "MONAI_FEDLORA_GPU_FEATURES"
"""Share of a GPU's free memory in which features of frozen parts stay; unset 0.25, and 0 keeps none there."""

GPU_PROCESSES = "MONAI_FEDLORA_GPU_PROCESSES"
"""Number of processes that share each GPU, and with it the share for features; unset 1."""

SIGN_PASSPHRASE = "MONAI_FEDLORA_SIGN_PASSPHRASE"
"""Passphrase of the key that signs an exported bundle, if it is not in a file."""

POLICY = "MONAI_FEDLORA_POLICY"
"""Path of a site's policy where there is no ``policy.json`` in an NVFlare kit's ``local/``, as in simulations."""
