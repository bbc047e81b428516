"""What an end has installed: the versions of the packages that compute, and the plan's bundle.

A plan may pin both, so that an end with others refuses it; sites tell theirs in any case, see
:mod:`monai_fedlora.federated.readiness`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.catalogues import installed_version
from monai_fedlora.errors import ConfigError, OtherBundle, OtherVersions
from monai_fedlora.resources import bundle_digest

PACKAGES = ("monai-fedlora", "monai", "torch", "nvflare")
"""Packages on which it depends what a site computes, and whether it understands the server."""
_PUBLIC = re.compile(r"\d{1,5}(\.\d{1,5}){0,3}((a|b|rc)\d{1,5})?(\.post\d{1,5})?(\.dev\d{1,8})?")
_HASH = re.compile(r"[0-9a-f]{64}")


def installed_versions() -> dict[str, str]:
    """The public part of the versions of :data:`PACKAGES` here, without what names a build (PEP 440)."""
    found = {name: __version__ if name == PACKAGES[0] else installed_version(name) or "" for name in PACKAGES}
    public = {name: _PUBLIC.match(version) for name, version in found.items()}
    return {name: match[0] for name, match in public.items() if match}


def is_versions(value: Any) -> bool:
    """Whether a value maps some of :data:`PACKAGES` to public versions, which hold no words."""
    return isinstance(value, Mapping) and all(
        name in PACKAGES and isinstance(version, str) and _PUBLIC.fullmatch(version) for name, version in value.items()
    )


def check_pins(bundle_sha256: Any, versions: Any) -> None:
    """Refuse what pins nothing that could be installed.

    Raises:
        ConfigError: see there.
    """
    if bundle_sha256 != "" and not (isinstance(bundle_sha256, str) and _HASH.fullmatch(bundle_sha256)):
        raise ConfigError("bundle_sha256 must be the 64 hexadecimal digits that monai_fedlora.resources computes")
    if not is_versions(versions):
        raise ConfigError(f"versions is {versions!r:.200}; it must map some of {', '.join(PACKAGES)} to their versions")


def check_installed(bundle: str, *, bundle_sha256: str, versions: Mapping[str, str]) -> None:
    """Refuse a plan that was made with other packages, or with another bundle of its name, than are installed here.

    Args:
        bundle: its name.
        bundle_sha256: its digest at who made the plan; empty for any.
        versions: of packages there; of others than these any will do.

    Raises:
        OtherVersions: a package has another version.
        OtherBundle: the bundle computes something else.
        ConfigError: there is no such bundle.
    """
    here = installed_versions()
    if others := {name: pin for name, pin in versions.items() if here.get(name) != pin}:
        said = ", ".join(f"{name} {pin} (here {here.get(name, 'none')})" for name, pin in others.items())
        raise OtherVersions(
            f"the job was made with {said}; install these versions at every end, or make the job again with "
            "monai-fedlora job --allow-versions, which records the versions of all ends instead"
        )
    if bundle_sha256 and (digest := bundle_digest(bundle)) != bundle_sha256:
        raise OtherBundle(
            f"the bundle {bundle} is not the one that the job was made with: expected {bundle_sha256}, found "
            f"{digest}; get the same bundle, and look for another one of that name in MONAI_FEDLORA_BUNDLES"
        )
