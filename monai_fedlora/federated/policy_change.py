"""Changing a site's own limits, with every name in them looked up."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai_fedlora.catalogues import canonical, plugins
from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.federated.site_policy import FILE_NAME, Policy, check_local, site_policy
from monai_fedlora.methods import method_names
from monai_fedlora.resources import list_bundles


def change_policy(local: Path | None, **limits: Any) -> Policy:
    """Write limits into a site's ``policy.json``; the others stay as they are.

    Args:
        local: the site's ``local/`` folder; None to change nothing and only read the limits that hold here.
        limits: by name, see `monai_fedlora.federated.site_policy.Policy`.

    Returns:
        The policy as it is now.

    Raises:
        ConfigError: a method, bundle or package of that name is not installed here, or there is no such folder.
        PolicyError: a limit is out of range, or the file that is there cannot be read.
    """
    packages = {canonical(plugin.distribution): plugin.distribution for plugin in plugins()}
    _check("--methods: no method is called", limits.get("methods"), method_names())
    _check("--bundles: no bundle is called", limits.get("bundles"), list_bundles())
    for name in limits.get("plugins") or ():
        if canonical(name) not in packages:
            _check("--plugins: no package installed here has plug-ins and is called", [name], packages.values())
    if local is None:
        if limits:
            raise ConfigError("give --output DIR, the site's local/ folder, to write these limits")
        return site_policy()
    check_local(local)
    path = local / FILE_NAME
    before = Policy.load(path) if os.path.lexists(path) else Policy()
    policy = Policy.from_json({**before.to_json(), **limits}, source=str(path))
    policy.save(path)
    return policy


def _check(what: str, names: Iterable[str] | None, known: Iterable[str]) -> None:
    choices = sorted(known)
    for name in names or ():
        if name not in choices:
            raise ConfigError(f"{what} {name!r}{nearest(name, choices or ['none'])}")
