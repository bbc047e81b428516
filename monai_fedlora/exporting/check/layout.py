"""Check the list of a bundle's files, and their checksums."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.arrays import ARRAY
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.check.findings import Finding
from monai_fedlora.exporting.check.plain_json import read_plain_json
from monai_fedlora.exporting.checksums import CHECKSUMS_NAME
from monai_fedlora.exporting.signing import SIGNATURE_NAME

EXPORTED = "exported"
TRAINING = "training"
SCRIPT, PROGRAM = "models/model.ts", "models/model.pt2"
_METADATA = "configs/metadata.json"
MODELS = ("models/model.pt", "models/model.ts", "models/model.pt2", "models/model.onnx")

_REQUIRED = {
    EXPORTED: (
        "LICENSE",
        CHECKSUMS_NAME,
        "configs/inference.json",
        "configs/metadata.json",
        "docs/README.md",
        "models/model.pt",
    ),
    TRAINING: ("LICENSE", "configs/metadata.json", "configs/train.json", "docs/README.md"),
}
_DOCUMENTS = r"LICENSE|docs/[A-Za-z0-9_-]+\.(md|txt)"
_KNOWN = {
    EXPORTED: re.compile(
        "|".join(
            [
                _DOCUMENTS,
                r"configs/(inference|metadata)\.json",
                *map(re.escape, [*MODELS, CHECKSUMS_NAME, SIGNATURE_NAME]),
            ]
        )
    ),
    TRAINING: re.compile(
        "|".join(
            [
                _DOCUMENTS,
                r"configs/([A-Za-z0-9_-]+/)?[A-Za-z0-9_-]+\.json",
                r"configs/logging\.conf",
                re.escape(CHECKSUMS_NAME),
                re.escape(SIGNATURE_NAME),
            ]
        )
    ),
}
_DIGEST = re.compile("[0-9a-f]{64}")


def kind_of(contents: Contents) -> str:
    """:data:`EXPORTED` for a bundle with a model, :data:`TRAINING` for configuration alone."""
    return EXPORTED if any(name.startswith("models/") for name in contents.files) else TRAINING


def check_files(contents: Contents) -> Iterator[Finding]:
    """No file is unknown, and no required one is missing."""
    kind = kind_of(contents)
    for name in contents.files:
        if name.endswith((".py", ".pyc", ".pyi", ".so", ".pth")):
            yield Finding(rule="files", file=name, problem="is code; a bundle holds none")
        elif not _KNOWN[kind].fullmatch(name):
            yield Finding(rule="files", file=name, problem=f"is no file of {_AN[kind]} bundle")
    for name in (*_REQUIRED[kind], *([model_of(contents)] if kind == EXPORTED else [])):
        if name not in contents.files:
            yield Finding(rule="files", file=name, problem="is missing")


def model_of(contents: Contents) -> str:
    """The main model file of an exported bundle: the program if the images are arrays, otherwise the script."""
    try:
        said = read_plain_json(contents.read(_METADATA))
        arrays = said["network_data_format"]["inputs"]["image"]["modality"] == ARRAY
    except (ExportError, LookupError, TypeError):
        arrays = False
    return PROGRAM if arrays else SCRIPT


def check_checksums(contents: Contents) -> Iterator[Finding]:
    """Every file except ``checksums.json`` and the signature has its listed digest, and no listed file is missing.

    A training bundle may have no ``checksums.json``.
    """
    if CHECKSUMS_NAME not in contents.files:
        return
    listed = _read_list(contents)
    for name in sorted(contents.files.keys() | listed.keys()):
        if name == CHECKSUMS_NAME:
            if name in listed:
                yield Finding(rule="checksums", file=name, problem="lists itself")
        elif name not in contents.files:
            yield Finding(rule="checksums", file=name, problem="is listed but missing")
        elif name not in listed:
            if name == SIGNATURE_NAME:  # made last, over the list as well
                continue
            yield Finding(rule="checksums", file=name, problem="is not listed: it was added")
        elif contents.digests[name] != listed[name]:
            yield Finding(rule="checksums", file=name, problem="was changed or damaged: another SHA-256")


def _read_list(contents: Contents) -> dict[str, str]:
    content = read_plain_json(contents.read(CHECKSUMS_NAME))
    files: Any = content.get("files") if isinstance(content, dict) else None
    plain = isinstance(files, dict) and content.keys() == {"algorithm", "files"} and content["algorithm"] == "sha256"
    if not plain or not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in files.values()):
        raise ExportError(f'{CHECKSUMS_NAME} is not {{"algorithm": "sha256", "files": {{path: digest}}}}')
    return files


_AN = {EXPORTED: "an exported", TRAINING: "a training"}
