"""Pack a finished folder as one zip file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from monai_fedlora.errors import ExportError
from monai_fedlora.files import atomic_path


def pack(folder: Path, target: Path) -> None:
    """Write the zip file ``target`` with ``folder`` in it, uncompressed and in the order of the names.

    The same content always gives the same bytes.

    Raises:
        ExportError: ``target`` exists.
    """
    if os.path.lexists(target):
        raise ExportError(f"{target} exists; choose another output, or remove it")
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            member.external_attr = 0o100644 << 16
            with path.open("rb") as source, archive.open(member, "w", force_zip64=True) as stream:
                while chunk := source.read(1 << 20):
                    stream.write(chunk)
