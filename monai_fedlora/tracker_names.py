"""The experiment trackers by name, and whether they can be used here."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from monai_fedlora.errors import ConfigError

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
TRACKERS = (TENSORBOARD, MLFLOW)
"""Each is called as its package is."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what cannot be used.

    Raises:
        ConfigError: an unknown name, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"there is no tracker {name!r}; choose from {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"the tracker {name} is not installed; install it with: pip install 'monai-fedlora[tracking]'"
            )
