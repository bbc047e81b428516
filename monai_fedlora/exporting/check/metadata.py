"""Check ``metadata.json`` against MONAI's schema and the other files of the bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from monai_fedlora.data.origin import MIXED, PUBLISHED, SYNTHETIC, UNKNOWN, Origin, check_kind, recognised, together
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.check.findings import Finding
from monai_fedlora.exporting.check.layout import EXPORTED, kind_of
from monai_fedlora.exporting.check.plain_json import read_plain_json
from monai_fedlora.files import sha256

METADATA_NAME = "configs/metadata.json"


@cache
def metadata_schema() -> dict[str, Any]:
    """JSON schema of ``metadata.json``, from the MONAI bundle specification."""
    return json.loads(Path(__file__).with_name("metadata_schema.json").read_text(encoding="utf-8"))


def check_metadata(contents: Contents) -> Iterator[Finding]:
    """The metadata fit the schema; those of an exported bundle also have a valid provenance and training data."""
    from jsonschema import Draft202012Validator

    if METADATA_NAME not in contents.files:
        return
    metadata = read_plain_json(contents.read(METADATA_NAME))
    for error in sorted(Draft202012Validator(metadata_schema()).iter_errors(metadata), key=lambda e: str(e.json_path)):
        yield _finding(f"{error.json_path} does not fit the schema: {error.message[:200]}")
    if kind_of(contents) == EXPORTED:
        yield from _check_provenance(metadata, contents)
        yield from training_data_problems(metadata)


def _check_provenance(metadata: Any, contents: Contents) -> Iterator[Finding]:
    origin = metadata.get("provenance") if isinstance(metadata, Mapping) else None
    if not isinstance(origin, Mapping):
        yield _finding("there is no provenance")
        return
    if origin.get("not_for_clinical_use") is not True:
        yield _finding("provenance does not say not_for_clinical_use")
    if origin.get("kind") not in ("personal", "shared"):
        yield _finding("provenance does not say whether the model is personal or shared")
    listed = origin.get("files_sha256")
    if not isinstance(listed, Mapping) or "models/model.pt" not in listed:
        yield _finding("provenance does not name the SHA-256 of models/model.pt")
        return
    for name, digest in listed.items():
        if name in contents.files and sha256(contents.path(name)) != digest:
            yield _finding(f"provenance names another SHA-256 for {name} than it has")


def training_data_problems(metadata: Any) -> Iterator[Finding]:
    """Problems of the entry on the training images: it is incomplete, or inconsistent.

    Bundles of earlier versions have no such entry; their training images are unknown.
    """
    if not isinstance(metadata, Mapping) or "training_data" not in metadata:
        if isinstance(metadata, Mapping) and "personal_or_shared" in metadata:
            yield _finding("training_data is missing, which every export that says personal_or_shared has")
        return
    said = metadata["training_data"]
    try:
        parts, backbone = said["parts"], said["backbone"]
        own = Origin(kind=said["kind"], name=said["name"], source=said["source"])
        start = None if parts["start"] is None else Origin.from_json(parts["start"])
        kinds = [kind for kind in (parts["site"], parts["shared"]) if kind is not None]
        kinds += [start.kind] if start is not None and parts["shared"] is not None else []
        for kind in kinds:
            check_kind(kind)
        if backbone["kind"] not in (SYNTHETIC, PUBLISHED, UNKNOWN) or not isinstance(backbone["name"], str):
            raise ConfigError(f"the backbone is of the kind {backbone['kind']!r:.40}")
    except (ConfigError, KeyError, TypeError) as error:
        yield _finding(f"training_data are not what an export writes: {error}")
        return
    if together(kinds) != own.kind:
        yield _finding(f"training_data call the images {own.kind}, and their parts {', '.join(kinds) or 'nothing'}")
    if own.name and recognised(own.name).kind == SYNTHETIC and own.kind not in (SYNTHETIC, MIXED):
        yield _finding(f"training_data call {own.name} {own.kind}, which is a name of this package's phantoms")


def _finding(problem: str) -> Finding:
    return Finding(rule="metadata", file=METADATA_NAME, problem=problem)
