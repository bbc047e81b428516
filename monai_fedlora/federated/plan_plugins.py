"""Packages of the plug-ins that a plan names, the same at every end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monai_fedlora.catalogues import Plugin, installed_version
from monai_fedlora.errors import ConfigError


def check_installed(said: Any) -> None:
    """Refuse packages that are not installed here in the version that a plan says.

    Raises:
        ConfigError: one is not, or what is said is no mapping from distributions to versions.
    """
    if not isinstance(said, dict) or not all(isinstance(part, str) for item in said.items() for part in item):
        raise ConfigError(f"plugins is {said!r}; it must be a mapping from distributions to their versions")
    for name, version in said.items():
        if (here := installed_version(name)) != version:
            raise ConfigError(
                f"the plan is made for the plug-ins of {name} {version}, and "
                f"{f'{here} is' if here else 'no such package is'} installed here; install that version at every "
                "end, or make the plan again"
            )


def versions(used: Iterable[Plugin | None], said: dict[str, str]) -> dict[str, str]:
    """Versions of the packages of plug-ins, by distribution; refuse others than a plan says, if it says any.

    Raises:
        ConfigError: it says others.
    """
    found = {plugin.distribution: plugin.version for plugin in used if plugin}
    if said and said != found:
        raise ConfigError(
            f"the plan says that its plug-ins are of {', '.join(said)}, and here they are of "
            f"{', '.join(found) or 'none'}; make the plan again with the packages that every end has"
        )
    return found
