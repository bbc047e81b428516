"""A folder that appears complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_fedlora.errors import ExportError
from monai_fedlora.files import flush, make_folder


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder of the same name that is moved to ``target`` when the block succeeds.

    Until then it lies in a hidden folder beside ``target`` that only its owner can read; an exception removes it.

    Raises:
        ExportError: ``target`` exists, or its parent cannot be written.
    """
    if os.path.lexists(target):
        raise ExportError(f"{target} exists; choose another output folder, or remove it")
    try:
        make_folder(target.parent)
        scratch = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise ExportError(f"{target} cannot be created: {error}") from error
    with scratch as name:
        folder = Path(name) / target.name
        folder.mkdir(mode=0o700)
        yield folder
        for path in [*sorted(folder.rglob("*")), folder]:
            flush(path)
        folder.rename(target)
    flush(target.parent)
