"""``checksums.json``: the SHA-256 of every other file of a bundle except its signature."""

from __future__ import annotations

from pathlib import Path

from monai_fedlora.exporting.signing import SIGNATURE_NAME
from monai_fedlora.files import sha256, write_json

CHECKSUMS_NAME = "checksums.json"


def write_checksums(folder: Path) -> str:
    """Write ``checksums.json`` into a finished bundle.

    It holds ``{"algorithm": "sha256", "files": {path: hexadecimal digest}}`` with the paths of all other files,
    relative to the folder and with ``/`` between their parts; a signature, which is made afterwards, is left out.

    Returns:
        The bundle's digest: the SHA-256 of ``checksums.json``, which depends on all files.
    """
    left_out = (folder / CHECKSUMS_NAME, folder / SIGNATURE_NAME)
    paths = (path for path in folder.rglob("*") if path.is_file() and path not in left_out)
    digests = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    write_json(folder / CHECKSUMS_NAME, {"algorithm": "sha256", "files": digests})
    return sha256(folder / CHECKSUMS_NAME)
