"""Paths of bundles, jobs and demonstration weights in the installed package, a checkout or the user's own folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, WeightsError, nearest
from monai_fedlora.files import read_json, sha256

BUNDLES_VARIABLE = "MONAI_FEDLORA_BUNDLES"

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_REFERENCE = re.compile(r"@(\w+)")


def bundle_path(name: str) -> Path:
    """Return the folder of the bundle called ``name``.

    It is searched in the folder ``$MONAI_FEDLORA_BUNDLES``, then in the installed package, then in the checkout.

    Raises:
        ConfigError: ``name`` is not a plain folder name, or no such bundle exists; the message lists the
            places looked at and the bundles found there.
    """
    return _folder(name, "bundle", _bundle_roots(), hint=f"set ${BUNDLES_VARIABLE} to the folder that holds it")


def bundle_configs(name: str) -> list[Path]:
    """Return the files that together configure a bundle's training, in the order in which MONAI merges them.

    A ``train.json`` without an entry ``train`` holds settings only; the shipped ``training.json``, which builds the
    training from them, follows it. Any other ``train.json`` is complete.

    Raises:
        ConfigError: there is no such bundle, its ``train.json`` is not a JSON object, has entries that
            ``training.json`` would replace, or lacks settings that it needs.
    """
    path = bundle_path(name) / "configs" / "train.json"
    own = read_json(path)
    if not isinstance(own, dict):
        raise ConfigError(f"{path} is no JSON object")
    if "train" in own:
        return [path]
    shared = _shared_training()
    built = read_json(shared)
    if lost := sorted(own.keys() & built.keys() - {"run"}):
        raise ConfigError(
            f"{path} says {', '.join(lost)}, which {shared} says too and would replace; leave it out, or make "
            "train.json complete, with a train of its own"
        )
    if unsaid := sorted(set(_REFERENCE.findall(json.dumps(built))) - own.keys() - built.keys()):
        raise ConfigError(
            f"{path} does not say {', '.join(unsaid)}, which {shared} needs; it may be a copy of an earlier version's. "
            "Add what the shipped bundles' train.json have there: null for image_mean and image_std takes the "
            "normalisation of the size"
        )
    return [path, shared]


def bundle_digest(name: str) -> str:
    """SHA-256 of what decides a bundle's training: its merged configuration, and code that lies in its folder.

    How the files are laid out does not count, and neither does what is written for inference or for people.

    Raises:
        ConfigError: see :func:`bundle_configs`.
    """
    digest, root = hashlib.sha256(), bundle_path(name)
    for path in bundle_configs(name):
        digest.update(json.dumps(read_json(path), sort_keys=True).encode() + b"\0")
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()} {sha256(path)}\0".encode())
    return digest.hexdigest()


def bundle_setting(name: str, config: str, key: str) -> Any:
    """Return the value of a top-level key of a bundle's configuration.

    Raises:
        ConfigError: there is no such bundle, or no such key in it.
    """
    path = bundle_path(name) / "configs" / f"{config}.json"
    content = read_json(path)
    if not isinstance(content, dict) or key not in content:
        raise ConfigError(f"{path} does not say {key}; give it on the command line")
    return content[key]


def bundle_task(name: str) -> str:
    """Return the task of a bundle, as its inference configuration says it; one that does not say it classifies.

    Raises:
        ConfigError: there is no such bundle, or no such configuration.
    """
    path = bundle_path(name) / "configs" / "inference.json"
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no JSON object")
    return str(content.get("task", "classification"))


def list_bundles() -> list[str]:
    """Return the names of every bundle that `bundle_path` finds, sorted."""
    return _names(_bundle_roots())


def job_template_path(name: str) -> Path:
    """Return the folder of the NVFlare job called ``name``.

    Raises:
        ConfigError: ``name`` is not a plain folder name, or no such job exists; the message lists the places
            looked at and the jobs found there.
    """
    return _folder(name, "job", _shipped("nvflare_jobs"), hint="give the path of your own job folder instead")


def weights_path(name: str) -> Path:
    """Return a packaged file of weights.

    Raises:
        WeightsError: the file is not part of this installation.
    """
    path = _PACKAGE / "weights" / name
    if not path.is_file():
        raise WeightsError(f"packaged weights are missing: {path} does not exist; reinstall the package")
    return path


def _shared_training() -> Path:
    places = [root / "training.json" for root in _shipped("bundles")]
    if found := next((path for path in places if path.is_file()), None):
        return found
    raise ConfigError(f"{places[0]} is missing, which the shipped bundles share; reinstall the package")


def _bundle_roots() -> tuple[Path, ...]:
    override = os.environ.get(BUNDLES_VARIABLE)
    return ((Path(override).expanduser(),) if override else ()) + _shipped("bundles")


def _shipped(kind: str) -> tuple[Path, ...]:
    return _PACKAGE / kind, _CHECKOUT / kind


def _folder(name: str, kind: str, roots: Sequence[Path], *, hint: str) -> Path:
    if not _PLAIN_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a {kind} name: a folder name of letters, digits, '_', '-' and '.' is needed"
        )
    for root in roots:
        if (root / name).is_dir():
            return (root / name).resolve()
    looked_at = ", ".join(str(root) for root in roots)
    near = nearest(name, _names(roots) or ["none"])
    raise ConfigError(f"there is no {kind} {name!r}{near} (looked in {looked_at}); or {hint}")


def _names(roots: Sequence[Path]) -> list[str]:
    return sorted(
        {
            entry.name
            for root in roots
            if root.is_dir()
            for entry in root.iterdir()
            if entry.is_dir() and not entry.name.startswith(("_", "."))
        }
    )
