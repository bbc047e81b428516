"""Options that several commands read in the same way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError

DEFAULT_BUNDLE = "cine_cmr_dual_lora_classification"
DEFAULT_SITES = "site-1,site-2,site-3,site-4"


def parse_settings(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``NAME=VALUE`` texts into settings: a value is JSON, else a list at commas, else a word.

    Raises:
        ConfigError: one has no equals sign.
    """
    settings: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: write NAME=VALUE")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text.split(",") if "," in text else text
    return settings


def find_backbone(size: str, given: str | None) -> str:
    """The source of a backbone's weights: the given file, folder or hub id, else the demo weights of its size.

    Raises:
        ConfigError: there is no such file, folder or size.
    """
    from monai_fedlora.networks.catalogue import demo_weights
    from monai_fedlora.networks.stored import HUB_PREFIX

    backbone = given or demo_weights(size)
    if backbone is None:
        raise ConfigError(f"there are no demo weights of size {size}; give the file of its backbone with --backbone")
    if not str(backbone).startswith(HUB_PREFIX) and not Path(backbone).exists():
        raise ConfigError(f"the backbone {backbone} does not exist")
    return str(backbone)
