"""Names of the supported experiment trackers, and a check that they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from monai_fedlora.errors import ConfigError

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
TRACKERS = (TENSORBOARD, MLFLOW)
"""Trackers, by the name of their package."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be used.

    Raises:
        ConfigError: a name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"there is no tracker {name!r}; choose from {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"the tracker {name} is not installed; install it with: pip install 'monai-fedlora[tracking]'"
            )
